/* A program outside the session that does what it is asked: outside KIND PLACE.
 * A request is "V4 TOKEN": connect there, send that. It stands for a container engine, a bus, a proxy, cron, a terminal
 * multiplexer: what matters is that its connection is not the session's. Says "ready" and goes on until it is ended. */
#include "common.h"
#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <dirent.h>
#include <signal.h>

#define NETLINK_PORT 0x7a71

/* What this machine would keep when we are gone. */
static const char *left_path;
static int left_queue = -1;

static void gone(int signal)
{
	(void)signal;
	if (left_path)
		unlink(left_path);
	if (left_queue >= 0)
		msgctl(left_queue, IPC_RMID, NULL);
	_exit(0);
}

static int connected(char *request, int type)
{
	char *token = strchr(request, ' ');
	struct sockaddr_in to;
	if (!token)
		return -1;
	*token = 0;
	to = v4(request, PORT);
	*token = ' ';
	int fd = sock(AF_INET, type, 0);
	must(connect(fd, (struct sockaddr *)&to, sizeof to), "connect, outside");
	return fd;
}

static void act(char *request)
{
	request[strcspn(request, "\r\n")] = 0;
	int fd = connected(request, SOCK_STREAM);
	if (fd < 0)
		return;
	say(fd, strchr(request, ' ') + 1);
	close(fd);
}

static void ready(void)
{
	puts("ready");
	fflush(stdout);
}

static void pass(int client, char *request)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { "x", 1 };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int fd = connected(request, SOCK_STREAM);
	*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd) };
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	must(sendmsg(client, &m, 0), "sendmsg, outside");
	close(fd);
}

/* Streams: each connection is one request; the answer is a byte, or a connected socket. */
static _Noreturn void serve(int listener, int passes, const char *answer)
{
	char request[256] = { 0 };
	must(listen(listener, 8), "listen, outside");
	ready();
	for (;;) {
		int client = accept(listener, NULL, NULL);
		ssize_t n = read(client, request, sizeof request - 1);
		if (n > 0) {
			request[n] = 0;
			if (answer)
				must(write(client, answer, strlen(answer)), "write, outside");
			else if (passes)
				pass(client, request);
			else {
				act(request);
				must(write(client, "y", 1), "write, outside");
			}
		}
		close(client);
	}
}

static socklen_t place(struct sockaddr_un *a, const char *path)
{
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	strncpy(a->sun_path, path, sizeof a->sun_path - 1);
	if (*path == '@')
		a->sun_path[0] = 0;
	else
		unlink(path);
	return offsetof(struct sockaddr_un, sun_path) + strlen(path);
}

static int bound(const char *path, int type)
{
	struct sockaddr_un a;
	socklen_t length = place(&a, path);
	int fd = must(socket(AF_UNIX, type, 0), "socket, outside");
	left_path = *path == '@' ? NULL : path;
	must(bind(fd, (struct sockaddr *)&a, length), path);
	chmod(path, 0777);
	return fd;
}

static _Noreturn void read_all(int fd)
{
	char request[256];
	ready();
	for (;;) {
		ssize_t n = read(fd, request, sizeof request - 1);
		if (n <= 0) {
			usleep(5000);
			continue;
		}
		request[n] = 0;
		act(request);
	}
}

static _Noreturn void loopback(const char *address, int family)
{
	int fd = sock(family, SOCK_STREAM, 0), on = 1;
	struct timeval never = { 0 };
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(3129), .sin_addr.s_addr = inet_addr(address) };
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = htons(3129), .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof never);
	if (family == AF_INET)
		must(bind(fd, (struct sockaddr *)&a, sizeof a), "bind, outside");
	else
		must(bind(fd, (struct sockaddr *)&a6, sizeof a6), "bind, outside");
	serve(fd, 0, NULL);
}

static _Noreturn void vsock(const char *port)
{
	struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = (unsigned)atoi(port) };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (fd < 0) {
		/* Who asks finds out that there is none. */
		ready();
		for (;;)
			pause();
	}
	must(bind(fd, (struct sockaddr *)&a, sizeof a), "bind, outside");
	serve(fd, 0, NULL);
}

static _Noreturn void netlink(void)
{
	struct sockaddr_nl a = { .nl_family = AF_NETLINK, .nl_pid = NETLINK_PORT };
	char message[512];
	int fd = must(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_USERSOCK), "socket, outside");
	must(bind(fd, (struct sockaddr *)&a, sizeof a), "bind, outside");
	ready();
	for (;;) {
		ssize_t n = recv(fd, message, sizeof message - 1, 0);
		if (n > NLMSG_HDRLEN) {
			message[n] = 0;
			act(message + NLMSG_HDRLEN);
		}
	}
}

static _Noreturn void queue(const char *key)
{
	struct {
		long type;
		char text[256];
	} m;
	int id = left_queue = must(msgget(atoi(key), IPC_CREAT | 0666), "msgget, outside");
	ready();
	for (;;) {
		ssize_t n = msgrcv(id, &m, sizeof m.text - 1, 0, 0);
		if (n > 0) {
			m.text[n] = 0;
			act(m.text);
		}
	}
}

static void fifo(const char *path)
{
	unlink(path);
	must(mkfifo(path, 0666), path);
	chmod(path, 0666);
	/* Open for writing too: else the end of the first writer is the end of the pipe. */
	read_all(must(open(path, O_RDWR), path));
}

/* Goes to a socket that somebody else makes, and takes the request from there. */
static _Noreturn void visit(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char request[256];
	strncpy(a.sun_path, path, sizeof a.sun_path - 1);
	ready();
	for (;; usleep(5000)) {
		int fd = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket, outside");
		if (!connect(fd, (struct sockaddr *)&a, sizeof a)) {
			ssize_t n = read(fd, request, sizeof request - 1);
			if (n > 0) {
				request[n] = 0;
				act(request);
			}
		}
		close(fd);
	}
}

/* Whatever file appears in a folder is a request: cron, a spooler, a synchronised folder. */
static _Noreturn void spool(const char *folder)
{
	char path[512], request[256];
	ready();
	for (;; usleep(5000)) {
		DIR *d = opendir(folder);
		for (struct dirent *e; d && (e = readdir(d));) {
			snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
			int fd = e->d_name[0] == '.' ? -1 : open(path, O_RDONLY);
			ssize_t n = fd < 0 ? 0 : read(fd, request, sizeof request - 1);
			if (n > 0) {
				request[n] = 0;
				unlink(path);
				act(request);
			}
			close(fd);
		}
		if (d)
			closedir(d);
	}
}

static _Noreturn void shared(const char *path)
{
	int fd = must(open(path, O_RDWR | O_CREAT | O_TRUNC, 0666), path);
	left_path = path;
	fchmod(fd, 0666);
	must(ftruncate(fd, 4096), "ftruncate, outside");
	char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), request[256];
	ready();
	for (;; usleep(5000))
		if (__atomic_load_n(memory, __ATOMIC_ACQUIRE)) {
			strncpy(request, memory + 1, sizeof request - 1);
			*memory = 0;
			act(request);
		}
}

/* A process whose memory or sockets somebody else may try to use: it writes down where its buffer is. The socket is
 * connected to what REQUEST says, and never used by itself. */
static _Noreturn void victim(const char *path, char *request)
{
	static char buffer[256];
	FILE *f = fopen(path, "w");
	prctl(PR_SET_DUMPABLE, 1);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	fprintf(f, "%d %p %d\n", getpid(), (void *)buffer, request ? connected(request, SOCK_DGRAM) : -1);
	fclose(f);
	chmod(path, 0666);
	ready();
	for (;; usleep(5000))
		if (__atomic_load_n(buffer, __ATOMIC_ACQUIRE)) {
			/* Whoever writes here does so word by word. */
			usleep(20000);
			act(buffer);
			*buffer = 0;
		}
}

int main(int count, char **words)
{
	const char *kind = count > 1 ? words[1] : "", *where = count > 2 ? words[2] : "";
	if (!strcmp(kind, "as")) {
		/* outside as UID KIND ... */
		int id = atoi(where);
		if (id && (setgid((gid_t)id) || setuid((uid_t)id)))
			ends("becoming a user, outside");
		return main(count - 2, words + 2);
	}
	if (!strcmp(kind, "exec") && count > 2) {
		execvp(where, words + 2);
		ends(where);
	}
	signal(SIGTERM, gone);
	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(kind, "late") && count > 4) {
		/* outside late FILE KIND PLACE: only once the file is there. */
		ready();
		while (access(where, F_OK) < 0)
			usleep(5000);
		return main(count - 2, words + 2);
	}
	if (!strcmp(kind, "visit"))
		visit(where);
	if (!strcmp(kind, "stream"))
		serve(bound(where, SOCK_STREAM), 0, NULL);
	if (!strcmp(kind, "pass"))
		serve(bound(where, SOCK_STREAM), 1, NULL);
	if (!strcmp(kind, "answer") && count > 3)
		serve(bound(where, SOCK_STREAM), 0, words[3]);
	if (!strcmp(kind, "dgram"))
		read_all(bound(where, SOCK_DGRAM));
	if (!strcmp(kind, "loopback"))
		loopback(where, AF_INET);
	if (!strcmp(kind, "loopback6"))
		loopback("127.0.0.1", AF_INET6);
	if (!strcmp(kind, "vsock"))
		vsock(where);
	if (!strcmp(kind, "netlink"))
		netlink();
	if (!strcmp(kind, "queue"))
		queue(where);
	if (!strcmp(kind, "fifo"))
		fifo(where);
	if (!strcmp(kind, "spool"))
		spool(where);
	if (!strcmp(kind, "shared"))
		shared(where);
	if (!strcmp(kind, "victim"))
		victim(where, count > 3 ? words[3] : NULL);
	return 2;
}
