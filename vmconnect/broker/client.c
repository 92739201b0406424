/* The `vmconnect` command, compiled: the thin client of the broker, without a start of Python's.
 *
 * `vmconnect exec` is handed to the broker, as vmconnect/broker/client.py does, which stands in
 * where nothing was compiled: the same order (order.py), the same messages (wire.py), the same
 * signals. Every other command, and what the broker does not do, is Python's: `vmconnect-python`,
 * beside this file.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

enum { LIMIT_BYTES = 128 << 10, INPUT_BYTES = 1 << 16, DESCRIPTORS = 3 };
enum { NOBODY = -1, ALONE = -2 }; /* instead of an exit code, as in client.py */
enum { FAILED = 255, INTERRUPTED = 130, NOT_FOUND = 127 };
static const char PROTOCOL[] = "1";
/* How long a broker may take to say that it has read the order. One that takes longer hangs. */
enum { ANSWER_SECONDS = 3 };

static const struct { int number; const char *name; bool ending; } PASSED_ON[] = {
    {SIGHUP, "HUP", true}, {SIGQUIT, "QUIT", true}, {SIGTERM, "TERM", true},
    {SIGUSR1, "USR1", false}, {SIGUSR2, "USR2", false},
};
enum { PASSED_ON_COUNT = sizeof PASSED_ON / sizeof *PASSED_ON };
static const int STOPPING[] = {SIGTSTP, SIGTTIN};

static char self[PATH_MAX]; /* this program's own path, links followed */

/* The rest is Python's. */

static bool has_prefix(const char *text, const char *prefix) {
    return !strncmp(text, prefix, strlen(prefix));
}

/* Be `vmconnect-python`. `asked` tells it that the broker need not be asked again, and our path
 * whose orders one that it starts is to take. */
static int be_python(char **argv, const char *asked) {
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s-python", self);
    unsetenv("VMCONNECT_BROKER_ASKED");
    unsetenv("VMCONNECT_BROKER_CLIENT");
    if (asked) {
        setenv("VMCONNECT_BROKER_ASKED", asked, 1);
        setenv("VMCONNECT_BROKER_CLIENT", self, 1);
    }
    execv(path, argv);
    fprintf(stderr, "vmconnect: cannot start %s: %s%s\n", path, strerror(errno),
            errno == ENOENT ? " (install vmconnect again)" : "");
    return NOT_FOUND;
}

/* Open the null device where a standard descriptor is closed: else the socket would be it. */
static void open_standard(void) {
    for (int number = 0; number < DESCRIPTORS; number++)
        if (fcntl(number, F_GETFD) < 0)
            open("/dev/null", O_RDWR); /* the lowest that is free */
}

/* Whether Python, started now, would be as it was installed and speak UTF-8, which it does in the
 * C locale, too. If not, it has a client of its own that knows better. */
static bool is_python_plain(void) {
    static const char *const told[] = {"PYTHONPATH", "PYTHONHOME", "PYTHONIOENCODING", "PYTHONUTF8",
        "PYTHONCOERCECLOCALE"};
    for (size_t place = 0; place < sizeof told / sizeof *told; place++)
        if (getenv(told[place]))
            return false;
    const char *locale = "", *names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (int place = 0; place < 3 && !*locale; place++)
        if (getenv(names[place]))
            locale = getenv(names[place]);
    const char *charset = strchr(locale, '.');
    return !*locale || !strcmp(locale, "C") || !strcmp(locale, "POSIX") ||
           (charset && (!strncasecmp(charset, ".utf-8", 6) || !strncasecmp(charset, ".utf8", 5)));
}

/* Whether a broker may do it: secrets stay in this process, and so does what somebody debugs. */
static bool is_wanted(char **argv) {
    const char *broker = getenv("VMCONNECT_BROKER"), *debug = getenv("VMCONNECT_DEBUG");
    if ((broker && !strcmp(broker, "0")) || (debug && *debug))
        return false;
    for (; *argv; argv++)
        if (!strcmp(*argv, "--no-broker"))
            return false;
    for (char **variable = environ; *variable; variable++) {
        const char *end = strchr(*variable, '='), *found = strstr(*variable, "PASSWORD");
        if (has_prefix(*variable, "VMCONNECT_") && found && (!end || found < end))
            return false;
    }
    return true;
}

/* The order. */

static char packet[LIMIT_BYTES + 1];
static size_t packet_length;

static void add_bytes(const char *bytes, size_t length) {
    if (length <= sizeof packet - packet_length)
        memcpy(packet + packet_length, bytes, length);
    packet_length = packet_length + length < sizeof packet ? packet_length + length : sizeof packet;
}

static void add(const char *field) {
    add_bytes("", 1); /* fields are separated by zero bytes */
    add_bytes(field, strlen(field));
}

static void add_count(size_t count) {
    char text[24];
    snprintf(text, sizeof text, "%zu", count);
    add(text);
}

/* Whether a variable has a bearing on what a command does (order.py). */
static bool is_meaningful(const char *variable) {
    static const char *const names[] = {"HOME=", "LOGNAME=", "USER=", "LNAME=", "USERNAME=",
        "XDG_RUNTIME_DIR=", "XDG_STATE_HOME=", "XDG_CONFIG_HOME="};
    if (!strchr(variable, '=') || has_prefix(variable, "VMCONNECT_BROKER"))
        return false;
    for (size_t place = 0; place < sizeof names / sizeof *names; place++)
        if (has_prefix(variable, names[place]))
            return true;
    return has_prefix(variable, "VMCONNECT_") || has_prefix(variable, "LIBVIRT_");
}

/* Make the packet; false for more than fits. */
static bool make_order(char **argv) {
    char directory[PATH_MAX];
    if (!getcwd(directory, sizeof directory))
        return false;
    const char *agent = getenv("SSH_AUTH_SOCK");
    size_t words = 0, variables = 0;
    while (argv[words])
        words++;
    for (char **variable = environ; *variable; variable++)
        variables += is_meaningful(*variable);
    add_bytes("R", 1);
    add_bytes(PROTOCOL, strlen(PROTOCOL));
    add(self);
    add(directory);
    add(agent ? agent : "");
    add(isatty(0) ? "1" : "");
    add("utf-8"); /* of messages */
    add("utf-8"); /* of file names */
    add_count(words);
    add_count(variables);
    for (size_t place = 0; place < words; place++)
        add(argv[place]);
    for (char **variable = environ; *variable; variable++)
        if (is_meaningful(*variable)) {
            add_bytes("", 1);
            add_bytes(*variable, (size_t)(strchr(*variable, '=') - *variable));
        }
    for (char **variable = environ; *variable; variable++)
        if (is_meaningful(*variable))
            add(strchr(*variable, '=') + 1);
    return packet_length <= LIMIT_BYTES;
}

/* The connection. */

static int broker;

/* Where the broker's socket is: vmconnect/runtime.py has the rule. False if it cannot be one. */
static bool find_socket(struct sockaddr_un *address) {
    char directory[PATH_MAX], login[64];
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    struct stat found;
    unsigned uid = getuid();
    snprintf(login, sizeof login, "/run/user/%u", uid);
    if (runtime && *runtime == '/')
        snprintf(directory, sizeof directory, "%s/vmconnect", runtime);
    else if (!stat(login, &found) && S_ISDIR(found.st_mode))
        snprintf(directory, sizeof directory, "%s/vmconnect", login);
    else
        snprintf(directory, sizeof directory, "/tmp/vmconnect-%u", uid);
    /* It has to be a directory of ours that nobody else may write to. */
    if (lstat(directory, &found) || !S_ISDIR(found.st_mode) || found.st_uid != uid ||
        found.st_mode & (S_IWGRP | S_IWOTH))
        return false;
    address->sun_family = AF_UNIX;
    size_t size = sizeof address->sun_path;
    return snprintf(address->sun_path, size, "%.*s/broker.sock", (int)size, directory) < (int)size;
}

/* How long one may have to wait until the broker takes what it is told; 0 for ever. */
static void limit_sending(time_t seconds) {
    struct timeval limit = {.tv_sec = seconds};
    setsockopt(broker, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static bool connect_broker(void) {
    struct sockaddr_un address;
    struct ucred owner;
    socklen_t length = sizeof owner;
    if (!find_socket(&address))
        return false;
    broker = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    limit_sending(ANSWER_SECONDS); /* Where the queue is full, nobody has listened for long. */
    return !connect(broker, (struct sockaddr *)&address, sizeof address) &&
           !getsockopt(broker, SOL_SOCKET, SO_PEERCRED, &owner, &length) && owner.uid == geteuid();
}

static bool send_order(void) {
    union { struct cmsghdr head; char space[CMSG_SPACE(DESCRIPTORS * sizeof(int))]; } rights = {0};
    const int standard[DESCRIPTORS] = {0, 1, 2};
    struct iovec data = {packet, packet_length};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &rights,
        .msg_controllen = sizeof rights.space};
    rights.head.cmsg_len = CMSG_LEN(sizeof standard);
    rights.head.cmsg_level = SOL_SOCKET;
    rights.head.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&rights.head), standard, sizeof standard);
    return sendmsg(broker, &message, MSG_NOSIGNAL) == (ssize_t)packet_length;
}

/* Say something. A broker that has gone the next turn finds; one that takes nothing is not waited
 * for: no signal of ours would end that. */
static void tell(const char *kind, const char *rest) {
    char message[16];
    int length = snprintf(message, sizeof message, "%s%s", kind, rest);
    send(broker, message, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Take a message; its length, 0 at the end. */
static ssize_t listen_to_broker(char *message, size_t size) {
    ssize_t length;
    /* What it has not read of ours is an error first; what it has said before is still there. */
    do
        length = recv(broker, message, size, 0);
    while (length < 0 && errno == ECONNRESET);
    return length > 0 ? length : 0;
}

/* Signals: held back but while there is nothing to do, so that each is dealt with in its place. */

static sigset_t ours, theirs;
static volatile sig_atomic_t arrived[NSIG];
static bool taken, begun, wanting, interrupted, passed_on[PASSED_ON_COUNT];

static void note(int number) {
    arrived[number] = 1;
}

static void hold(int number) {
    struct sigaction action;
    /* Whoever started us may want it otherwise: nohup, or a shell without job control. */
    if (sigaction(number, NULL, &action) || action.sa_handler != SIG_DFL)
        return;
    sigaction(number, &(struct sigaction){.sa_handler = note}, NULL);
    sigaddset(&ours, number);
}

static void hold_signals(void) {
    sigemptyset(&ours);
    hold(SIGINT);
    for (size_t place = 0; place < sizeof STOPPING / sizeof *STOPPING; place++)
        hold(STOPPING[place]);
    for (int place = 0; place < PASSED_ON_COUNT; place++)
        hold(PASSED_ON[place].number);
    sigprocmask(SIG_BLOCK, &ours, &theirs);
}

/* Let signals do what they do, as Python is to find them; true if a Ctrl-C has come meanwhile. */
static bool release_signals(void) {
    sigset_t pending;
    sigpending(&pending);
    if (sigismember(&ours, SIGINT) && sigismember(&pending, SIGINT))
        return true;
    for (int number = 1; number < NSIG; number++)
        if (sigismember(&ours, number) == 1)
            signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &theirs, NULL);
    return false;
}

/* Let a signal do what it does to others. */
static void suffer(int number) {
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, number);
    signal(number, SIG_DFL);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    /* Here only what was stopped goes on. */
    sigprocmask(SIG_BLOCK, &only, NULL);
    sigaction(number, &(struct sigaction){.sa_handler = note}, NULL);
}

static bool has_arrived(void) {
    for (int number = 1; number < NSIG; number++)
        if (arrived[number])
            return true;
    return false;
}

static bool take(int number) {
    bool found = arrived[number];
    arrived[number] = 0;
    return found;
}

static int end_interrupted(void) {
    fputs("vmconnect: interrupted\n", stderr);
    return INTERRUPTED;
}

/* Deal with the signals that have come; true if a second Ctrl-C has: that one does not wait. */
static bool hear_signals(void) {
    if (take(SIGINT)) {
        if (interrupted)
            return true;
        interrupted = true;
        tell(begun ? "N" : "C", begun ? "INT" : "");
    }
    for (int place = 0; place < PASSED_ON_COUNT; place++)
        if (take(PASSED_ON[place].number)) {
            /* Before there is a command, and the second time, it is meant for us. */
            if (!begun || (PASSED_ON[place].ending && passed_on[place]))
                suffer(PASSED_ON[place].number);
            passed_on[place] = true;
            tell("N", PASSED_ON[place].name);
        }
    for (size_t place = 0; place < sizeof STOPPING / sizeof *STOPPING; place++)
        if (take(STOPPING[place])) {
            tell("P", "");
            suffer(STOPPING[place]);
            tell("G", "");
        }
    return false;
}

/* Waiting for the broker, and doing what it cannot do. */

/* Return what is left to do when the broker has gone without a word. */
static int is_over(void) {
    if (interrupted)
        return end_interrupted();
    if (!begun)
        return NOBODY;
    fputs("vmconnect: the broker has ended while the command ran\n", stderr);
    return FAILED;
}

/* Leave a broker that hangs, unless it has begun after all. */
static int give_up(void) {
    char kind;
    /* From here on it cannot say that it begins; what it has said can still be read. */
    shutdown(broker, SHUT_RDWR);
    while (listen_to_broker(&kind, 1))
        begun |= kind == 'b';
    return begun || interrupted ? is_over() : ALONE;
}

/* Send what somebody has typed: reading the terminal is for a foreground process alone. */
static void send_input(void) {
    static char input[1 + INPUT_BYTES] = "I";
    /* In the background the terminal stops whoever reads, which has to get through. */
    sigprocmask(SIG_SETMASK, &theirs, NULL);
    ssize_t count = has_arrived() ? -1 : read(0, input + 1, INPUT_BYTES);
    sigprocmask(SIG_BLOCK, &ours, NULL);
    if (has_arrived() && count < 0)
        return; /* It is still wanted, and a signal comes first. */
    wanting = false;
    send(broker, input, 1 + (size_t)(count > 0 ? count : 0), MSG_NOSIGNAL);
}

static int wait_for_broker(void) {
    const struct timespec patience = {.tv_sec = ANSWER_SECONDS};
    char message[2];
    for (;;) {
        struct pollfd either[2] = {{.fd = broker, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
        if (hear_signals())
            return end_interrupted();
        int ready = ppoll(either, wanting ? 2 : 1, taken ? NULL : &patience, &theirs);
        if (!ready)
            return give_up();
        if (ready < 0 || !either[0].revents) {
            if (ready > 0)
                send_input();
            continue;
        }
        ssize_t length = listen_to_broker(message, sizeof message);
        if (!length)
            return is_over();
        switch (message[0]) {
        case 'e':
            return length > 1 ? (unsigned char)message[1] : FAILED;
        case 'a': /* alone */
        case 'r': /* likewise: it has retired */
            return interrupted ? end_interrupted() : message[0] == 'a' ? ALONE : NOBODY;
        case 't':
            taken = true;
            limit_sending(0);
            break;
        case 'b':
            begun = true;
            break;
        case 'w':
            wanting = true;
            break;
        }
    }
}

/* Have the broker run a command line; its exit code, NOBODY or ALONE. */
static int hand_over(char **argv) {
    if (!is_wanted(argv) || !make_order(argv))
        return ALONE;
    hold_signals();
    int code = !connect_broker() ? NOBODY : !send_order() ? ALONE : wait_for_broker();
    if (code < 0 && release_signals())
        return end_interrupted();
    return code;
}

int main(int count, char **argv) {
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0 &&
        !realpath((char *)getauxval(AT_EXECFN), self)) {
        perror("vmconnect: cannot tell where it is installed");
        return NOT_FOUND;
    }
    if (count < 2 || strcmp(argv[1], "exec") || !is_python_plain())
        return be_python(argv, NULL);
    open_standard();
    int code = hand_over(argv + 1);
    return code >= 0 ? code : be_python(argv, code == NOBODY ? "nobody" : "alone");
}
