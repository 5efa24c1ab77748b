// An independent WebSocket load client, written from docs/protocol.md and RFC 6455 alone: it counts the frames of
// N clients of one gateway and the CPU of the server. Build: cc -O2 -Wall -Wextra -o load load.c
//   load --port 8080 [--path /ws] --clients N (--topic T | --symbols PREFIX:COUNT --pick K [--seed S]) [--rate R]
//        --seconds S [--warmup W] --pid PID [--cpu C] [--name-format PREFIX%05d] [--first 0]
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { READ = 65536, HEAD_MAX = 8192, KEEP_MAX = 1 << 20, HANDSHAKES = 256, CONNECT_S = 120 };
enum { EVERY = 101, TIMES_MAX = 16384, SUB = 32, BUCKETS = 60 * SUB };
enum { KIND = 9 };                  // where in {"type":"batch",.. its kind begins: heartbeats are no frames that were asked for
enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

struct client {
    int fd;
    enum { CONNECTING, ASKED, OPEN } state;
    char *kept;                     // the response head, or a wanted payload that is split over reads
    size_t held;                    // bytes in kept
    uint8_t head[10], have;         // the frame's header as far as it has come
    bool in_payload, keep, sample, answered, batch;
    int early;                      // data frames so far, up to 3: one of them answers the subscription
    uint64_t size, left;            // of the frame's payload
    uint64_t frames;                // in the window
};

static struct {
    int port, clients, pick, first, cpu, pid, seed;
    const char *path, *topic, *symbols, *format;
    double rate, seconds, warmup;
} o = {.cpu = -1, .warmup = 2, .seed = 1};

static struct { uint64_t frames, others, bytes, samples, listed, pictures, rows, timed, ages[BUCKETS]; } seen;
static struct client *clients;
static uint64_t serial, codes[65536];
static int ep, opened, ended, subscribed, refused, *deck, deck_size;
static char buffer[READ + 1];       // one more for a NUL, at which the parsing of a number stops

__attribute__((noreturn, format(printf, 2, 3))) static void quit(int status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(status);
}

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t draw(void) {        // splitmix64: the same seed must give the same choice of symbols
    static uint64_t state;
    uint64_t z = state += 0x9e3779b97f4a7c15 + (state ? 0 : (uint64_t)o.seed << 32);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

// ---- samples: what stands in a frame

struct found { bool list, picture; int rows, times; int64_t at[TIMES_MAX]; };

static void take_key(struct found *f, int depth, const char *key, size_t n, const char *value) {
    value += strspn(value, " ");
    int64_t v = isdigit((unsigned char)*value) ? strtoll(value, NULL, 10) : -1;     // -1 also for null
    if (n == 7 && !memcmp(key, "time_us", n) && v >= 0 && f->times < TIMES_MAX) f->at[f->times++] = v;
    if (depth != 1) return;
    if (n == 8 && !memcmp(key, "snapshot", n)) f->picture = *value == 't';
    if (n == 4 && !memcmp(key, "rows", n)) f->list = *value == '[';
}

// A row is an object (or, with columns, a list) that stands directly in the list "rows" of the message.
static void scan(const char *p, size_t n, struct found *f) {
    bool in_rows = false;
    int depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '"') {
            size_t start = ++i;
            while (i < n && p[i] != '"') i += p[i] == '\\' ? 2 : 1;
            if (i + 2 >= n || p[i + 1] != ':') continue;
            bool before = f->list;
            take_key(f, depth, p + start, i - start, p + i + 2);
            in_rows |= f->list && !before;
        } else if (p[i] == '{' || p[i] == '[') {
            f->rows += in_rows && depth == 2;
            depth++;
        } else if (p[i] == '}' || p[i] == ']') {
            if (--depth == 1) in_rows = false;
        }
    }
}

static void note_age(int64_t us) {          // 32 steps for each power of two
    uint64_t v = us > 0 ? (uint64_t)us : 0;
    int power = v < SUB ? 4 : 63 - __builtin_clzll(v);
    seen.ages[v < SUB ? v : (unsigned)(power - 4) * SUB + (v >> (power - 5) & (SUB - 1))]++;
    seen.timed++;
}

static double percentile_ms(double share) {
    uint64_t rank = (uint64_t)(share * (double)(seen.timed - 1)), sum = 0, b = 0;
    if (!seen.timed) return NAN;
    while ((sum += seen.ages[b]) <= rank) b++;
    double width = b < SUB ? 1 : (double)(1ULL << (b / SUB - 1));
    return (b < SUB ? (double)b : ((double)(SUB + b % SUB) + 0.5) * width) / 1000;
}

static void take_sample(const char *p, size_t n) {
    static struct found f;
    f.list = f.picture = false, f.rows = f.times = 0;
    scan(p, n, &f);
    int64_t clock_us = (int64_t)(now(CLOCK_REALTIME) * 1e6);
    seen.samples++;
    seen.listed += f.list;
    seen.pictures += f.picture;
    seen.rows += (uint64_t)f.rows;
    for (int i = 0; i < f.times && !f.picture; i++)         // a first picture has rows that changed long ago
        note_age(clock_us - f.at[i]);
}

// A wrong symbol name would make a quiet server look fast, so the answer to each subscription is read.
static void check_answer(struct client *c, const char *p, size_t n) {
    bool good = memmem(p, n, "\"type\":\"subscribed\"", 19), bad = memmem(p, n, "\"type\":\"error\"", 14);
    if (!good && !bad) return;
    c->answered = true;
    subscribed += good;
    bad |= memmem(p, n, "\"rejected\":[{", 13) != NULL;
    if (bad && !refused++) fprintf(stderr, "load: topics were refused: %.*s\n", (int)(n < 400 ? n : 400), p);
}

// ---- frames

static void release(struct client *c) {
    free(c->kept);
    c->kept = NULL;
    c->held = 0;
}

static void end_client(struct client *c, int code) {
    if (c->state != OPEN) quit(1, "a connection ended in its handshake, expected status 101 (%d are open)", opened);
    close(c->fd);
    release(c);
    c->fd = -1;
    codes[code]++;
    ended++;
}

static void answer_control(struct client *c, int opcode, const char *p, size_t n) {
    uint8_t out[6 + 125] = {(uint8_t)(0x80 | opcode), (uint8_t)(0x80 | n)}, *mask = out + 2;
    if (getrandom(mask, 4, 0) != 4) quit(1, "getrandom gave no mask");
    for (size_t i = 0; i < n; i++) out[6 + i] = (uint8_t)p[i] ^ mask[i & 3];
    ssize_t sent = send(c->fd, out, 6 + n, MSG_NOSIGNAL);
    if (sent >= 0 && sent != (ssize_t)(6 + n)) quit(1, "a pong was taken in part: the server does not read");
}

static void end_frame(struct client *c, const char *payload) {
    int opcode = c->head[0] & 15;
    c->have = 0;
    c->in_payload = false;
    if (opcode == TEXT || opcode == BINARY) c->frames += c->batch, seen.frames += c->batch, seen.others += !c->batch;
    if (opcode == PING) answer_control(c, PONG, payload, c->size);
    if (c->sample) take_sample(payload, c->size);
    else if (c->keep && opcode < CLOSE) check_answer(c, payload, c->size);
    if (opcode == CLOSE) {
        answer_control(c, CLOSE, payload, c->size < 2 ? 0 : 2);
        end_client(c, c->size < 2 ? 1005 : (uint8_t)payload[0] << 8 | (uint8_t)payload[1]);
    }
    release(c);
}

static void begin_frame(struct client *c) {
    int opcode = c->head[0] & 15, wide = c->have - 2;
    bool data = opcode == TEXT || opcode == BINARY, whole = c->head[0] & 0x80;
    c->size = wide ? 0 : c->head[1] & 127;
    for (int i = 0; i < wide; i++) c->size = c->size << 8 | c->head[2 + i];
    if (c->head[0] & 0x70) quit(1, "the server set a reserved bit, though no extension was asked for");
    if (c->head[1] & 0x80) quit(1, "the server masked a frame, expected none");
    if (opcode >= CLOSE && c->size > 125) quit(1, "the server sent a control frame of %d bytes, expected 125 at most", (int)c->size);
    if (!whole) quit(1, "the server split a message, which docs/protocol.md rules out");
    bool early = data && !c->answered && c->early < 3;
    c->early += early;
    c->sample = data && ++serial % EVERY == 0 && !early && c->size <= KEEP_MAX;
    c->keep = c->sample || opcode >= CLOSE || (early && c->size <= KEEP_MAX);
    c->left = c->size;
    c->batch = false;
    c->in_payload = true;
    if (!c->left) end_frame(c, "");
}

static void take_payload(struct client *c, const char *p, size_t n) {
    size_t at = c->size - c->left;              // of p in the payload
    if (at <= KIND && KIND < at + n) c->batch = p[KIND - at] == 'b';
    if ((c->head[0] & 15) < CLOSE) seen.bytes += n;
    c->left -= n;
    if (n == c->size) return end_frame(c, p);
    if (c->keep) {                  // copied: a sample of only those that lie whole in a read would favour small ones
        if (!c->kept && !(c->kept = calloc(1, c->size + 1))) quit(1, "out of memory");
        memcpy(c->kept + c->held, p, n);
        c->held += n;
    }
    if (!c->left) end_frame(c, c->kept);
}

static void feed(struct client *c, const char *p, size_t n) {
    for (size_t take; n > 0 && c->fd >= 0; p += take, n -= take) {
        take = !c->in_payload ? 1 : n < c->left ? n : c->left;
        if (c->in_payload) {
            take_payload(c, p, take);
            continue;
        }
        c->head[c->have++] = (uint8_t)*p;
        int length = c->head[1] & 127;
        if (c->have >= 2 && c->have == (length == 127 ? 10 : length == 126 ? 4 : 2)) begin_frame(c);
    }
}

// ---- handshakes

static void start_client(struct client *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o.port)};
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) quit(1, "socket: %s", strerror(errno));
    if ((connect(c->fd, (void *)&to, sizeof to) && errno != EINPROGRESS) ||
        epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &event))
        quit(1, "connecting to 127.0.0.1:%d: %s", o.port, strerror(errno));
}

static void write_topics(FILE *out) {       // a comma stays as it is: it stands between topics
    for (const char *t = o.topic; t && *t; t++)
        fprintf(out, isalnum((unsigned char)*t) || strchr("-._~*@:/,", *t) ? "%c" : "%%%02X", (unsigned char)*t);
    for (int i = 0; i < o.pick; i++) {      // the beginning of a shuffle: K different ones, all sets equally likely
        int j = i + (int)(draw() % (uint64_t)(deck_size - i)), card = deck[j];
        deck[j] = deck[i], deck[i] = card;
        if (i) fputc(',', out);
        fprintf(out, o.format, card);
    }
}

static void write_request(FILE *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t raw[17] = {0};
    char key[25] = "......................==", joint = strchr(o.path, '?') ? '&' : '?';
    if (getrandom(raw, 16, 0) != 16) quit(1, "getrandom gave no key");
    for (int i = 0, bit = 0; i < 22; i++, bit += 6)
        key[i] = digits[(raw[bit / 8] << 8 | raw[bit / 8 + 1]) >> (10 - bit % 8) & 63];
    fprintf(out, "GET %s", o.path);
    if (o.topic || o.symbols) {
        fprintf(out, "%csymbols=", joint), joint = '&';
        write_topics(out);
    }
    if (o.rate > 0) fprintf(out, "%crate=%g", joint, o.rate);
    fprintf(out, " HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", o.port);
    fprintf(out, "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n", key);
}

static void ask(struct client *c) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int error = 0;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error});
    if (error) quit(1, "connecting to 127.0.0.1:%d: %s", o.port, strerror(error));
    FILE *out = fmemopen(buffer, READ, "w");
    if (!out) quit(1, "fmemopen: %s", strerror(errno));
    write_request(out);
    long n = ftell(out);
    if (fclose(out) || n >= HEAD_MAX) quit(2, "--pick: the request is over %d bytes, expected fewer topics", HEAD_MAX);
    if (send(c->fd, buffer, (size_t)n, MSG_NOSIGNAL) != n) quit(1, "a request was not taken: %s", strerror(errno));
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &event);
    c->state = ASKED;
    if (!(c->kept = calloc(1, HEAD_MAX))) quit(1, "out of memory");
}

static void take_head(struct client *c, const char *p, size_t n) {
    for (size_t i = 0; i < n && c->state == ASKED; i++) {
        c->kept[c->held++] = p[i];
        if (c->held == HEAD_MAX - 1) quit(1, "expected a response head of less than %d bytes", HEAD_MAX);
        if (c->held < 4 || memcmp(c->kept + c->held - 4, "\r\n\r\n", 4)) continue;
        if (strncmp(c->kept, "HTTP/1.1 101", 12))
            quit(1, "expected status 101, got: %.*s", (int)strcspn(c->kept, "\r"), c->kept);
        if (!strcasestr(c->kept, "\r\nsec-websocket-accept:")) quit(1, "expected a header Sec-WebSocket-Accept");
        release(c);
        c->state = OPEN;
        opened++;
        feed(c, p + i + 1, n - i - 1);      // the first frames may come in the same read
    }
}

// ---- the loop

static void on_event(struct client *c) {
    if (c->state == CONNECTING) return ask(c);
    ssize_t n = recv(c->fd, buffer, READ, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return end_client(c, 0);
    if (c->state == ASKED) take_head(c, buffer, (size_t)n);
    else feed(c, buffer, (size_t)n);
}

static void turn(double until) {
    struct epoll_event events[512];
    double wait = until - now(CLOCK_MONOTONIC);
    int n = epoll_wait(ep, events, 512, wait > 0 ? (int)(wait * 1000) + 1 : 0);
    for (int i = 0; i < n; i++) on_event(events[i].data.ptr);
}

static void connect_all(void) {
    double deadline = now(CLOCK_MONOTONIC) + CONNECT_S;
    for (int started = 0; opened < o.clients; turn(deadline)) {
        while (started < o.clients && started - opened < HANDSHAKES) start_client(&clients[started++]);
        if (now(CLOCK_MONOTONIC) > deadline) quit(1, "only %d of %d connected in %d s", opened, o.clients, CONNECT_S);
    }
}

static void run_for(double seconds) {
    double until = now(CLOCK_MONOTONIC) + seconds;
    while (now(CLOCK_MONOTONIC) < until) turn(until);
}

// ---- the server's CPU, and the report

static double number_in(const char *path, const char *format) {
    char text[1024] = "", *end;
    unsigned long long a = 0, b = 0;
    FILE *file = fopen(path, "r");
    if (!file) return NAN;
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    end = strrchr(text, ')');               // of the program's name in stat, which may have blanks and brackets
    return n && sscanf(end ? end : text, format, &a, &b) >= 1 ? (double)(a + b) : NAN;
}

static double stat_seconds(void) {          // utime and stime, fields 14 and 15: threads that ended count
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", o.pid);
    return number_in(path, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu") / (double)sysconf(_SC_CLK_TCK);
}

struct clocks { double at, stat, own; };

static struct clocks read_clocks(void) {
    return (struct clocks){now(CLOCK_MONOTONIC), stat_seconds(), now(CLOCK_PROCESS_CPUTIME_ID)};
}

static void put(const char *name, double value) {
    if (isfinite(value)) printf("%s%.*g", name, value == (double)(int64_t)value ? 17 : 6, value);
    else printf("%snull", name);
}

static void report(struct clocks a, struct clocks b) {
    double seconds = b.at - a.at, frames = (double)seen.frames, stat = b.stat - a.stat, least = INFINITY, most = 0;
    double rows = (double)seen.rows / (double)seen.listed;
    for (int i = 0; i < o.clients; i++) {
        if ((double)clients[i].frames < least) least = (double)clients[i].frames;
        if ((double)clients[i].frames > most) most = (double)clients[i].frames;
    }
    printf("{\"clients\":%d,\"connected\":%d,\"ended\":%d,\"end_codes\":{", o.clients, opened, ended);
    for (int i = 0, many = 0; i < 65536; i++)                       // 0: the socket ended without a close frame
        if (codes[i]) printf("%s\"%d\":%d", many++ ? "," : "", i, (int)codes[i]);
    printf("},\"subscribed\":%d,\"refused\":%d", subscribed, refused);
    put(",\"seconds\":", seconds), put(",\"frames\":", frames), put(",\"bytes\":", (double)seen.bytes);
    put(",\"frames_per_second\":", frames / seconds);
    put(",\"min_frames_of_a_client\":", least), put(",\"max_frames_of_a_client\":", most);
    put(",\"server_cpu_s\":", stat);
    put(",\"server_cpu_us_per_frame\":", stat * 1e6 / frames), put(",\"own_cpu_share\":", (b.own - a.own) / seconds);
    put(",\"rows_per_frame\":", rows), put(",\"other_frames\":", (double)seen.others);
    put(",\"server_cpu_s_per_million_rows\":", stat * 1e6 / (rows * frames));
    put(",\"sampled\":", (double)seen.samples), put(",\"sampled_batches\":", (double)seen.listed);
    put(",\"sampled_pictures\":", (double)seen.pictures);
    put(",\"tick_to_client_ms\":{\"p50\":", percentile_ms(0.5)), put(",\"p99\":", percentile_ms(0.99));
    put(",\"count\":", (double)seen.timed), puts("}}");
}

// ---- the command line

static const struct known { const char *name; char kind; void *to; double least, most; } known[] = {
    {"port", 'i', &o.port, 1, 65535},       {"clients", 'i', &o.clients, 1, 100000}, {"path", 's', &o.path, 0, 0},
    {"topic", 's', &o.topic, 0, 0},         {"symbols", 's', &o.symbols, 0, 0},      {"pick", 'i', &o.pick, 1, 4096},
    {"seed", 'i', &o.seed, 0, 1e9},         {"rate", 'd', &o.rate, 0.1, 1000},       {"cpu", 'i', &o.cpu, 0, 1023},
    {"seconds", 'd', &o.seconds, 0.1, 1e5}, {"warmup", 'd', &o.warmup, 0, 1e5},      {"pid", 'i', &o.pid, 1, 4194304},
    {"first", 'i', &o.first, 0, 1e6},       {"name-format", 's', &o.format, 0, 0}};
enum { KNOWN = sizeof known / sizeof *known };

static void take_option(const struct known *k, const char *text) {
    char *end = "";
    double v = k->kind == 's' ? 0 : strtod(text, &end);
    if (!*text) quit(2, "--%s: '', expected a value", k->name);
    if (*end || (k->kind != 's' && !(v >= k->least && v <= k->most)) || (k->kind == 'i' && v != (int)v))
        quit(2, "--%s: '%s', expected a %snumber from %.10g to %.10g", k->name, text, k->kind == 'i' ? "whole " : "",
             k->least, k->most);
    if (k->kind == 's') *(const char **)k->to = text;
    else if (k->kind == 'i') *(int *)k->to = (int)v;
    else *(double *)k->to = v;
}

static void make_deck(void) {
    static char made[48];
    int n = (int)strcspn(o.symbols, ":%");
    if (o.symbols[n] != ':' || n > 32) quit(2, "--symbols: '%s', expected PREFIX:COUNT such as L:1000", o.symbols);
    take_option(&(struct known){"symbols (its COUNT)", 'i', &deck_size, 1, 1e6}, o.symbols + n + 1);
    if (!o.pick || o.pick > deck_size) quit(2, "--pick: expected a number from 1 to the %d of --symbols", deck_size);
    if (!o.format) snprintf(made, sizeof made, "%.*s%%05d", n, o.symbols), o.format = made;
    const char *spec = strchr(o.format, '%'), *end = spec ? spec + 1 + strspn(spec + 1, "0123456789") : "";
    if (*end != 'd' || end - spec > 4 || strchr(end, '%'))      // it is given to printf: nothing else may stand there
        quit(2, "--name-format: '%s', expected text with one %%d in it, such as L%%05d", o.format);
    if (!(deck = calloc((size_t)deck_size, sizeof *deck))) quit(1, "out of memory");
    for (int i = 0; i < deck_size; i++) deck[i] = o.first + i;
}

static void check_options(void) {
    if (!o.port) quit(2, "--port is missing, expected the server's port");
    if (!o.clients) quit(2, "--clients is missing, expected how many to connect");
    if (o.seconds <= 0) quit(2, "--seconds is missing, expected how long to measure");
    if (!o.pid) quit(2, "--pid is missing, expected the server's process id");
    if (isnan(stat_seconds())) quit(2, "--pid: %d, expected a process that runs", o.pid);
    if (o.topic && o.symbols) quit(2, "--topic and --symbols were given, expected one of them");
    if (!o.topic && !o.symbols && !o.path) quit(2, "expected --topic or --symbols, or the --path of a plain server");
    if (!o.symbols && (o.pick || o.format)) quit(2, "--pick and --name-format: expected --symbols with them");
    if (!o.path) o.path = "/ws";
    if (o.path[0] != '/' || strpbrk(o.path, " \r\n")) quit(2, "--path: '%s', expected /.. without blanks", o.path);
    if (o.symbols) make_deck();
}

static void read_options(int argc, char **argv) {
    struct option all[KNOWN + 1] = {0};
    for (int i = 0; i < KNOWN; i++) all[i] = (struct option){known[i].name, required_argument, NULL, 256 + i};
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, ":", all, NULL)) != -1; take_option(&known[c - 256], optarg)) {
        if (c == ':') quit(2, "%s: expected a value behind it", argv[optind - 1]);
        if (c == '?') quit(2, "%s: no such option, expected one of those at the top of load.c", argv[optind - 1]);
    }
    if (optind < argc) quit(2, "'%s', expected options only", argv[optind]);
    check_options();
}

static void prepare(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) || files.rlim_max < (rlim_t)o.clients + 16)
        quit(2, "--clients: %d, expected at most %ld (ulimit -Hn)", o.clients, (long)files.rlim_max - 16);
    cpu_set_t set;
    CPU_ZERO(&set);
    if (o.cpu >= 0) CPU_SET((unsigned)o.cpu, &set);
    if (o.cpu >= 0 && sched_setaffinity(0, sizeof set, &set)) quit(2, "--cpu: %d, expected a CPU that is here", o.cpu);
    ep = epoll_create1(0);
    clients = calloc((size_t)o.clients, sizeof *clients);
    if (ep < 0 || !clients) quit(1, "no epoll or no memory: %s", strerror(errno));
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    prepare();
    connect_all();
    run_for(o.warmup);
    memset(&seen, 0, sizeof seen);
    for (int i = 0; i < o.clients; i++) clients[i].frames = 0;
    struct clocks begin = read_clocks();
    run_for(o.seconds);
    struct clocks end = read_clocks();
    if (isnan(end.stat)) quit(1, "the server (pid %d) ended while it was measured", o.pid);
    report(begin, end);
}
