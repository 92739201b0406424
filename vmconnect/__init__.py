"""vmconnect: the console window and the command channel for every virtual machine."""
