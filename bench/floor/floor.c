// floor: the least a fan-out can cost on this kernel. Events come from its own
// clock; each goes, as one pre-encoded chunk, to every connected socket.
//
//   floor PORT RATE SIZE write|coalesce|uring
//
// write     one non-blocking send() per event per socket; a full socket loses
//           that event, a torn send closes it
// coalesce  a socket that lacks several events gets them in one send(); when the
//           loop is late, all events due are made first
// uring     like write, but the sends of one event go to io_uring in batches
//
// Build: cc -O2 -o floor floor.c, or with liburing for the third mode:
// cc -O2 -DURING -o floor floor.c -luring
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#ifdef URING
#include <liburing.h>
#endif
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CLIENTS = 300000, RING_EVENTS = 8192, BATCH = 1024, MAX_EVENT = 1 << 19, SMALLEST = 80 };

struct client { int fd; int live; unsigned long at; size_t torn; };

static struct client clients[MAX_CLIENTS];
static int slots[MAX_CLIENTS]; // descriptor to index in clients
static int count;
static char *ring[RING_EVENTS]; // chunk of event n is ring[n % RING_EVENTS]
static size_t ring_len[RING_EVENTS];
static unsigned long newest;

static long long now_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void make_event(int size) {
	static char event[MAX_EVENT];
	newest++;
	int n;
	if (size < SMALLEST) { // no room for the time
		n = sprintf(event, "data: {\"n\":%lu}", newest);
		while (n < size - 2) event[n++] = ' ';
		n += sprintf(event + n, "\n\n");
	} else {
		n = sprintf(event, "id: %lu\ndata: {\"n\":%lu,\"t\":%lld,\"pad\":\"", newest, newest, now_ns());
		while (n < size - 4) event[n++] = 'x';
		n += sprintf(event + n, "\"}\n\n");
	}
	char **slot = &ring[newest % RING_EVENTS];
	*slot = realloc(*slot, n + 16);
	int h = sprintf(*slot, "%x\r\n", n);
	memcpy(*slot + h, event, n);
	memcpy(*slot + h + n, "\r\n", 2);
	ring_len[newest % RING_EVENTS] = h + n + 2;
}

static void drop(struct client *c) {
	close(c->fd);
	*c = clients[--count];
	slots[c->fd] = c - clients;
}

static void send_each(void) { // write
	char *p = ring[newest % RING_EVENTS];
	size_t len = ring_len[newest % RING_EVENTS];
	for (int i = count - 1; i >= 0; i--) {
		if (!clients[i].live) continue;
		ssize_t n = send(clients[i].fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n != (ssize_t)len && !(n < 0 && errno == EAGAIN)) drop(&clients[i]);
	}
}

static int send_behind(struct client *c) { // coalesce; 0: gone
	static char batch[MAX_EVENT + 64];
	while (c->at < newest) {
		if (newest - c->at >= RING_EVENTS) return 0;
		char *p = ring[(c->at + 1) % RING_EVENTS];
		size_t len = ring_len[(c->at + 1) % RING_EVENTS];
		if (newest - c->at > 1) {
			len = 0;
			for (unsigned long e = c->at + 1; e <= newest && len + ring_len[e % RING_EVENTS] <= sizeof batch; e++) {
				memcpy(batch + len, ring[e % RING_EVENTS], ring_len[e % RING_EVENTS]);
				len += ring_len[e % RING_EVENTS];
			}
			p = batch;
		}
		ssize_t n = send(c->fd, p + c->torn, len - c->torn, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0) return errno == EAGAIN;
		n += c->torn;
		while (c->at < newest && n >= (ssize_t)ring_len[(c->at + 1) % RING_EVENTS])
			n -= ring_len[++c->at % RING_EVENTS];
		c->torn = n;
		if (n > 0) return 1; // full: the next event tries again
	}
	return 1;
}

#ifdef URING
static struct io_uring uring;

static void reap(void) {
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;
	io_uring_for_each_cqe(&uring, head, cqe) {
		seen++;
		if (cqe->res < 0 && cqe->res != -EAGAIN) clients[cqe->user_data].live = -1;
	}
	io_uring_cq_advance(&uring, seen);
}

static void send_uring(void) {
	char *p = ring[newest % RING_EVENTS];
	size_t len = ring_len[newest % RING_EVENTS];
	int queued = 0;
	for (int i = 0; i < count; i++) {
		if (clients[i].live != 1) continue;
		struct io_uring_sqe *sqe = io_uring_get_sqe(&uring);
		io_uring_prep_send(sqe, clients[i].fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		sqe->user_data = i;
		if (++queued == BATCH) {
			io_uring_submit_and_wait(&uring, queued);
			reap();
			queued = 0;
		}
	}
	if (queued) {
		io_uring_submit_and_wait(&uring, queued);
		reap();
	}
	for (int i = count - 1; i >= 0; i--)
		if (clients[i].live < 0) drop(&clients[i]);
}

static int open_uring(void) {
	struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
	return io_uring_queue_init_params(BATCH, &uring, &params) >= 0;
}
#else
static void send_uring(void) {}
static int open_uring(void) { return 0; }
#endif

int main(int argc, char **argv) {
	if (argc != 5) return fprintf(stderr, "usage: floor PORT RATE SIZE write|coalesce|uring\n"), 2;
	int size = atoi(argv[3]);
	if (size > MAX_EVENT - 64) return fprintf(stderr, "events of at most %d bytes\n", MAX_EVENT - 64), 2;
	int coalesce = !strcmp(argv[4], "coalesce"), use_uring = !strcmp(argv[4], "uring");
	long long period = 1e9 / atof(argv[2]);
	struct rlimit lim;
	getrlimit(RLIMIT_NOFILE, &lim);
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
	if (use_uring && !open_uring()) return fprintf(stderr, "no io_uring\n"), 1;

	int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (bind(listener, (void *)&addr, sizeof addr) || listen(listener, 4096)) return perror("listen"), 1;
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = listener}, got[256];
	epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);

	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
	for (long long due = now_ns() + period;;) {
		long long left = due - now_ns();
		struct timespec wait = {.tv_nsec = left > 0 ? left % 1000000000 : 0, .tv_sec = left > 0 ? left / 1000000000 : 0};
		int n = epoll_pwait2(ep, got, 256, &wait, NULL);
		for (int i = 0; i < n; i++) {
			if (got[i].data.fd == listener) {
				for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
					setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
					clients[count] = (struct client){.fd = fd};
					slots[fd] = count++;
					struct epoll_event in = {.events = EPOLLIN | EPOLLET, .data.fd = fd};
					epoll_ctl(ep, EPOLL_CTL_ADD, fd, &in);
				}
				continue;
			}
			struct client *c = &clients[slots[got[i].data.fd]];
			static char request[8192];
			if (read(c->fd, request, sizeof request) <= 0) { drop(c); continue; }
			if (!c->live) {
				send(c->fd, head, sizeof head - 1, MSG_NOSIGNAL);
				c->live = 1;
				c->at = newest;
			}
		}
		if (now_ns() < due) continue;
		if (coalesce) {
			for (; due <= now_ns(); due += period) make_event(size);
			for (int i = count - 1; i >= 0; i--)
				if (clients[i].live && !send_behind(&clients[i])) drop(&clients[i]);
		} else {
			make_event(size);
			due += period;
			use_uring ? send_uring() : send_each();
		}
	}
}
