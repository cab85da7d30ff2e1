/* An open-loop HTTP/1.1 load generator: `generator PLAN > RESULT.json`.

   Requests leave at their scheduled times (Poisson) over keep-alive connections, one request in flight on
   each. One that finds no connection of its class idle is `unsent`: it counts as not answered, and is not sent
   later. Latencies are from the scheduled time, so that what the server delays is measured (no coordinated
   omission).

   PLAN is text, one directive a line, times in seconds:
     port N | deadline D | drain D | seed N | phases COUNT LENGTH...
     class NAME SOURCE_ADDRESS CONNECTIONS REQUESTS_FILE RATE...     requests a second, one rate a phase;
                                                                     -1: closed loop, an answer sends the next
   REQUESTS_FILE: whole requests, each after its length as a 32-bit integer of this machine's byte order. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CLASSES = 64, MOST_PHASES = 16, HEAD = 8192, EVENTS = 256, SETTLE_S = 1 };
enum { BINS = 1024, BINS_A_DOUBLING = 32 };
enum end {
    ANSWERED, SERVED, DEGRADED,                                             /* 200 */
    DEFERRED, ABSTAINED, RATE_LIMITED, UNAVAILABLE, DEADLINE, OTHER,        /* any other reply */
    UNSENT, CLOSED, UNANSWERED, ENDS                                        /* none */
};
static const char *const END_NAMES[ENDS] = {
    "answered", "served", "degraded", "deferred", "abstained", "rate_limited", "unavailable", "deadline",
    "other", "unsent", "closed", "unanswered",
};
static const double BUCKET_S = 0.1;

struct histogram { uint64_t count[BINS]; double most_s; };   /* bin i: up to 2^(i / BINS_A_DOUBLING) us */
struct bucket { uint32_t count[ENDS][2]; };                  /* [1]: after the deadline */
struct request { const char *bytes; uint32_t length; };

struct connection {
    struct class *class;
    int fd, busy, writable_wanted;      /* fd -1: not open */
    int head_read;                      /* whether the reply's body is what comes next, body_left of it */
    double scheduled_s;
    const char *unwritten;
    size_t unwritten_length, head_length, body_left;
    enum end end;
    char head[HEAD];
};

struct class {
    char name[64], source[64];
    int connections;
    struct request *requests;
    size_t request_count, request_next;
    double rate[MOST_PHASES], next_s;
    struct connection *all;
    struct connection **idle;           /* a ring: the one that has been idle for longest is used next */
    int idle_first, idle_count;
    struct bucket *buckets;
    struct histogram answered[MOST_PHASES], replied[MOST_PHASES];
};

static struct class classes[MOST_CLASSES];
static double phase_end_s[MOST_PHASES], phase_cpu_s[MOST_PHASES], deadline_s, drain_s, begin_s;
static struct histogram lateness[MOST_PHASES];
static int class_count, phase_count, port, bucket_count, epoll, in_flight;
static unsigned short random_state[3];

static void fail(const char *what) {
    fprintf(stderr, "generator: %s\n", what);
    exit(2);
}

static void *allocate(size_t count, size_t size) {
    void *made = calloc(count ? count : 1, size);
    if (!made) fail("out of memory");
    return made;
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9 - begin_s;
}

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int phase_at(double at_s) {
    int phase = 0;
    while (phase < phase_count - 1 && at_s >= phase_end_s[phase]) phase++;
    return phase;
}

static void add(struct histogram *to, double seconds) {
    double bin = ceil(log2(fmax(seconds * 1e6, 1)) * BINS_A_DOUBLING);
    to->count[bin < BINS ? (int)bin : BINS - 1]++;
    if (seconds > to->most_s) to->most_s = seconds;
}

/* Counts the end of a request that was scheduled for so long ago. */
static void count(struct class *class, double scheduled_s, enum end end) {
    double latency_s = now_s() - scheduled_s;
    int bucket = scheduled_s / BUCKET_S, phase = phase_at(scheduled_s);
    class->buckets[bucket < bucket_count ? bucket : bucket_count - 1].count[end][latency_s > deadline_s]++;
    if (end < UNSENT) add(&class->replied[phase], latency_s);
    if (end <= DEGRADED) add(&class->answered[phase], latency_s);
}

static void set_idle(struct connection *one) {
    struct class *class = one->class;
    class->idle[(class->idle_first + class->idle_count++) % class->connections] = one;
}

static void finish(struct connection *one, enum end end) {
    count(one->class, one->scheduled_s, end);
    one->busy = 0;
    one->head_read = 0;
    in_flight--;
    set_idle(one);
}

static void close_connection(struct connection *one) {
    close(one->fd);
    one->fd = -1;
    if (one->busy) finish(one, CLOSED);
}

/* Connects without waiting. Returns whether the connection is open or on its way. */
static int open_connection(struct connection *one, int flags) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, from = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    int yes = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    from.sin_addr.s_addr = inet_addr(one->class->source);
    if ((one->fd = socket(AF_INET, SOCK_STREAM | flags, 0)) < 0) return 0;
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(one->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    one->writable_wanted = one->head_read = one->head_length = one->body_left = 0;
    if (bind(one->fd, (struct sockaddr *)&from, sizeof from) ||
        (connect(one->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, one->fd, &event)) {
        close(one->fd);
        one->fd = -1;
        return 0;
    }
    return 1;
}

static void write_rest(struct connection *one) {
    while (one->unwritten_length) {
        ssize_t written = send(one->fd, one->unwritten, one->unwritten_length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (written < 0 && errno != EAGAIN) { close_connection(one); return; }
        if (written <= 0) break;
        one->unwritten += written;
        one->unwritten_length -= written;
    }
    int wanted = one->unwritten_length > 0;
    if (wanted != one->writable_wanted) {
        struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = one};
        epoll_ctl(epoll, EPOLL_CTL_MOD, one->fd, &event);
        one->writable_wanted = wanted;
    }
}

static void send_request(struct class *class, double scheduled_s) {
    if (!class->idle_count) { count(class, scheduled_s, UNSENT); return; }
    struct connection *one = class->idle[class->idle_first];
    struct request *request = &class->requests[class->request_next++ % class->request_count];
    class->idle_first = (class->idle_first + 1) % class->connections;
    class->idle_count--;
    in_flight++;
    one->busy = 1;
    one->scheduled_s = scheduled_s;
    one->unwritten = request->bytes;
    one->unwritten_length = request->length;
    if (one->fd < 0 && !open_connection(one, SOCK_NONBLOCK)) finish(one, CLOSED);
    else write_rest(one);
}

/* The value of a header, or NULL. `name` holds the line feed before the name and the colon after it. */
static const char *header(const char *head, const char *name) {
    const char *at = strcasestr(head, name);
    return at ? at + strlen(name) + strspn(at + strlen(name), " ") : NULL;
}

static enum end end_of(int status, const char *outcome) {
    int deferred = outcome && !strncmp(outcome, "deferred", 8);
    if (status == 200 && outcome)
        return deferred ? DEFERRED : *outcome == 's' ? SERVED : *outcome == 'd' ? DEGRADED : OTHER;
    switch (status) {
    case 200: return ANSWERED;
    case 202: return DEFERRED;
    case 422: return deferred ? DEFERRED : ABSTAINED;
    case 429: return RATE_LIMITED;
    case 503: return UNAVAILABLE;
    case 504: return DEADLINE;
    default: return OTHER;
    }
}

/* Reads the head of a reply. Returns how many bytes of its body came with it; -1: it is not complete. */
static ssize_t parse_head(struct connection *one) {
    char *head_end = memmem(one->head, one->head_length, "\r\n\r\n", 4);
    if (!head_end) return -1;
    size_t body_begin = head_end + 4 - one->head;
    head_end[2] = 0;
    const char *length = header(one->head, "\ncontent-length:");
    one->head_read = 1;
    one->end = end_of(atoi(one->head + strlen("HTTP/1.1 ")), header(one->head, "\nx-failsafe-outcome:"));
    one->body_left = length ? strtoul(length, NULL, 10) : 0;
    ssize_t came = one->head_length - body_begin;
    one->head_length = 0;
    return came;
}

static void read_reply(struct connection *one) {
    static char body[1 << 18];
    char *to = one->head_read ? body : one->head + one->head_length;
    size_t room = one->head_read ? sizeof body : HEAD - one->head_length;
    ssize_t came = recv(one->fd, to, room, MSG_DONTWAIT);
    if (came < 0 && errno == EAGAIN) return;
    if (came <= 0 || !one->busy) { close_connection(one); return; }
    if (!one->head_read) {
        one->head_length += came;
        if ((came = parse_head(one)) < 0) {
            if (one->head_length == HEAD) close_connection(one);
            return;
        }
    }
    if ((size_t)came > one->body_left) { close_connection(one); return; }
    one->body_left -= came;
    if (!one->body_left) finish(one, one->end);
}

/* The first Poisson time after `at_s`, at the rates of the phases. */
static double next_time(const struct class *class, double at_s) {
    for (int phase = phase_at(at_s); phase < phase_count; phase++) {
        double rate = class->rate[phase], time_s = at_s - log(1 - erand48(random_state)) / rate;
        if (rate > 0 && time_s < phase_end_s[phase]) return time_s;
        at_s = phase_end_s[phase];
    }
    return INFINITY;
}

/* Sends what is due. Returns when the next request is. */
static double send_due(double end_s) {
    double first_s = end_s;
    for (struct class *class = classes; class < classes + class_count; class++) {
        double at_s = now_s();
        if (at_s < end_s && class->rate[phase_at(at_s)] < 0)
            for (int left = class->idle_count; left; left--) send_request(class, now_s());
        for (; class->next_s <= (at_s = now_s()); class->next_s = next_time(class, class->next_s)) {
            add(&lateness[phase_at(class->next_s)], at_s - class->next_s);
            send_request(class, class->next_s);
        }
        first_s = fmin(first_s, class->next_s);
    }
    return first_s;
}

static void run(void) {
    double end_s = phase_end_s[phase_count - 1], at_s;
    int phase = 0;
    double cpu_before_s = cpu_s();
    for (struct class *class = classes; class < classes + class_count; class++)
        class->next_s = next_time(class, 0);
    while ((at_s = now_s()) < end_s || (in_flight && at_s < end_s + drain_s)) {
        for (; phase < phase_count && at_s >= phase_end_s[phase]; phase++) {
            phase_cpu_s[phase] = cpu_s() - cpu_before_s;
            cpu_before_s += phase_cpu_s[phase];
        }
        double next_s = send_due(at_s < end_s ? end_s : end_s + drain_s);
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, 0);
        double wait_s = next_s - now_s();
        if (!ready && wait_s > 0) {
            struct timespec limit = {(time_t)wait_s, fmod(wait_s, 1) * 1e9};
            ppoll(&(struct pollfd){.fd = epoll, .events = POLLIN}, 1, &limit, NULL);
        }
        for (int i = 0; i < ready; i++) {
            struct connection *one = events[i].data.ptr;
            if (one->fd >= 0 && events[i].events & EPOLLOUT) write_rest(one);
            if (one->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_reply(one);
        }
    }
    for (; phase < phase_count; phase++) phase_cpu_s[phase] = cpu_s() - cpu_before_s;
}

static void count_unanswered(void) {
    for (struct class *class = classes; class < classes + class_count; class++)
        for (struct connection *one = class->all; one < class->all + class->connections; one++)
            if (one->busy) count(class, one->scheduled_s, UNANSWERED);
}

static void read_requests(struct class *class, const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail("a file of requests cannot be read");
    for (uint32_t length; fread(&length, sizeof length, 1, file) == 1;) {
        char *bytes = allocate(length, 1);
        if (fread(bytes, 1, length, file) != length) fail("a file of requests is cut short");
        class->requests = realloc(class->requests, ++class->request_count * sizeof *class->requests);
        if (!class->requests) fail("out of memory");
        class->requests[class->request_count - 1] = (struct request){bytes, length};
    }
    fclose(file);
    if (!class->request_count) fail("a file of requests is empty");
}

static void read_class(FILE *plan) {
    struct class *class = &classes[class_count++];
    char path[4096];
    if (class_count > MOST_CLASSES) fail("too many classes");
    if (fscanf(plan, "%63s %63s %d %4095s", class->name, class->source, &class->connections, path) != 4 ||
        class->connections < 1) fail("a class is not NAME SOURCE_ADDRESS CONNECTIONS REQUESTS_FILE RATE...");
    for (int phase = 0; phase < phase_count; phase++)
        if (fscanf(plan, "%lf", &class->rate[phase]) != 1) fail("a class has no rate for each phase");
    class->all = allocate(class->connections, sizeof *class->all);
    class->idle = allocate(class->connections, sizeof *class->idle);
    class->buckets = allocate(bucket_count, sizeof *class->buckets);
    read_requests(class, path);
}

static void read_phases(FILE *plan) {
    double end_s = 0, length_s;
    if (fscanf(plan, "%d", &phase_count) != 1 || phase_count < 1 || phase_count > MOST_PHASES)
        fail("there are not 1 to 16 phases");
    for (int phase = 0; phase < phase_count; phase++) {
        if (fscanf(plan, "%lf", &length_s) != 1) fail("a phase has no length");
        phase_end_s[phase] = end_s += length_s;
    }
    bucket_count = ceil(end_s / BUCKET_S);
}

static void read_plan(const char *path) {
    FILE *plan = fopen(path, "r");
    char word[64];
    int seed = 0;
    if (!plan) fail("the plan cannot be read");
    while (fscanf(plan, "%63s", word) == 1) {
        int known = !strcmp(word, "port") ? fscanf(plan, "%d", &port)
            : !strcmp(word, "deadline") ? fscanf(plan, "%lf", &deadline_s)
            : !strcmp(word, "drain") ? fscanf(plan, "%lf", &drain_s)
            : !strcmp(word, "seed") ? fscanf(plan, "%d", &seed)
            : !strcmp(word, "phases") ? (read_phases(plan), 1)
            : !strcmp(word, "class") && phase_count ? (read_class(plan), 1) : 0;
        if (known != 1) fail("a line of the plan is not known, or a class comes before the phases");
    }
    fclose(plan);
    random_state[0] = seed;
}

/* Opens all connections, one after the other, and gives the server time to accept them: a server on libuv
   accepts one in each turn of its loop, which under load takes seconds for what is waiting in its backlog. */
static void connect_all(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(0);
    for (struct class *class = classes; class < classes + class_count; class++)
        for (int i = 0; i < class->connections; i++) {
            struct connection *one = &class->all[i];
            one->class = class;
            if (!open_connection(one, 0)) fail("the server does not take connections");
            set_idle(one);
        }
    sleep(SETTLE_S);
}

static void print_histogram(const char *name, const struct histogram *one) {
    const char *comma = "";
    printf("\"%s\":{\"most_s\":%.9f,\"bins\":[", name, one->most_s);
    for (int i = 0; i < BINS; i++)
        if (one->count[i]) {
            printf("%s[%d,%lu]", comma, i, (unsigned long)one->count[i]);
            comma = ",";
        }
    printf("]}");
}

static void print_class(const struct class *class) {
    printf("{\"name\":\"%s\",\"phases\":[", class->name);
    for (int phase = 0; phase < phase_count; phase++) {
        printf(phase ? ",{" : "{");
        print_histogram("answered", &class->answered[phase]);
        printf(",");
        print_histogram("replied", &class->replied[phase]);
        printf("}");
    }
    printf("],\"buckets\":[");
    for (int bucket = 0; bucket < bucket_count; bucket++)
        for (int end = 0; end < ENDS; end++) {
            const uint32_t *counts = class->buckets[bucket].count[end];
            printf("%s%u,%u", end ? "," : bucket ? "],[" : "[", counts[0], counts[1]);
        }
    printf("]]}");
}

static void print_result(void) {
    printf("{\"bins_a_doubling\":%d,\"bucket_s\":%g,\"ends\":[", BINS_A_DOUBLING, BUCKET_S);
    for (int end = 0; end < ENDS; end++) printf("%s\"%s\"", end ? "," : "", END_NAMES[end]);
    printf("],\"generator\":[");
    for (int phase = 0; phase < phase_count; phase++) {
        printf("%s{\"cpu_s\":%.6f,", phase ? "," : "", phase_cpu_s[phase]);
        print_histogram("lateness", &lateness[phase]);
        printf("}");
    }
    printf("],\"classes\":[");
    for (int i = 0; i < class_count; i++) {
        if (i) printf(",");
        print_class(&classes[i]);
    }
    printf("]}\n");
}

int main(int argument_count, char **arguments) {
    if (argument_count != 2) fail("give the file of the plan");
    read_plan(arguments[1]);
    if (!phase_count || !class_count || !port) fail("the plan has no phases, no class or no port");
    connect_all();
    begin_s = now_s();
    run();
    count_unanswered();
    print_result();
    return 0;
}
