/* Asks a program outside the session to do it: others KIND PLACE V4 TOKEN. See outside.c for who is asked. */
#include "common.h"
#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define NETLINK_PORT 0x7a71

static char request[256];
static const char *token;

static int to_unix(const char *path, int type)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strncpy(a.sun_path, path, sizeof a.sun_path - 1);
	if (*path == '@')
		a.sun_path[0] = 0;
	int fd = must(socket(AF_UNIX, type, 0), "socket");
	must(connect(fd, (struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path) + strlen(path)), path);
	return fd;
}

/* Asks, and waits until it is done. */
static void ask(int fd)
{
	char answer;
	must(send(fd, request, strlen(request), MSG_NOSIGNAL), "send");
	must(read(fd, &answer, 1), "read");
}

/* A resolver on a unix socket: its answer is on no wire. */
static void resolved(int fd)
{
	char answer[64] = { 0 };
	must(send(fd, request, strlen(request), MSG_NOSIGNAL), "first: send");
	must(read(fd, answer, sizeof answer - 1), "first: read");
	struct sockaddr_in to = v4(answer, PORT);
	int connected = sock(AF_INET, SOCK_STREAM, 0);
	must(connect(connected, (struct sockaddr *)&to, sizeof to), "connect");
	say(connected, token);
}

static void passed(int fd)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec part = { &byte, 1 };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	int got;
	must(send(fd, request, strlen(request), MSG_NOSIGNAL), "send");
	must(recvmsg(fd, &m, 0), "recvmsg");
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (!c)
		errno = EPERM, ends("no socket came");
	memcpy(&got, CMSG_DATA(c), sizeof got);
	say(got, token);
}

/* The far end is another program of this machine, as it would be one of the hypervisor's. */
static void vsock(const char *port)
{
	if (access("/sys/module/vsock_loopback", F_OK) < 0)
		errno = ENODEV, ends("vsock's loopback");
	struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_LOCAL, .svm_port = (unsigned)atoi(port) };
	int fd = must(socket(AF_VSOCK, SOCK_STREAM, 0), "socket");
	must(connect(fd, (struct sockaddr *)&a, sizeof a), "connect");
	ask(fd);
}

static void loopback(const char *address)
{
	if (strchr(address, ':')) {
		struct sockaddr_in6 a = v6(address, 3129);
		int fd = sock(AF_INET6, SOCK_STREAM, 0);
		must(connect(fd, (struct sockaddr *)&a, sizeof a), "connect");
		ask(fd);
	} else {
		struct sockaddr_in a = v4(address, 3129);
		int fd = sock(AF_INET, SOCK_STREAM, 0);
		must(connect(fd, (struct sockaddr *)&a, sizeof a), "connect");
		ask(fd);
	}
}

static void netlink(void)
{
	struct sockaddr_nl a = { .nl_family = AF_NETLINK, .nl_pid = NETLINK_PORT };
	struct {
		struct nlmsghdr head;
		char text[256];
	} m = { .head = { .nlmsg_len = NLMSG_LENGTH(strlen(request)), .nlmsg_type = NLMSG_DONE } };
	strcpy(m.text, request);
	int fd = must(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_USERSOCK), "socket");
	must(sendto(fd, &m, m.head.nlmsg_len, 0, (struct sockaddr *)&a, sizeof a), "sendto");
}

static void queue(const char *key)
{
	struct {
		long type;
		char text[256];
	} m = { .type = 1 };
	strcpy(m.text, request);
	must(msgsnd(must(msgget(atoi(key), 0), "msgget"), &m, strlen(request), 0), "msgsnd");
}

static void written(const char *path, int flags)
{
	int fd = must(open(path, flags, 0666), path);
	must(write(fd, request, strlen(request)), "write");
	close(fd);
}

static void shared(const char *path)
{
	int fd = must(open(path, O_RDWR), path);
	char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		ends("mmap");
	strcpy(memory + 1, request);
	__atomic_store_n(memory, 1, __ATOMIC_RELEASE);
}

struct victim {
	int pid, fd;
	void *buffer;
};

static struct victim victim(const char *path)
{
	struct victim v;
	FILE *f = fopen(path, "r");
	if (!f || fscanf(f, "%d %p %d", &v.pid, &v.buffer, &v.fd) != 3)
		ends("first: the victim's own words");
	return v;
}

static void by_memory_file(const char *path)
{
	struct victim v = victim(path);
	char file[64];
	snprintf(file, sizeof file, "/proc/%d/mem", v.pid);
	int fd = must(open(file, O_RDWR), file);
	must(pwrite(fd, request, strlen(request), (off_t)(uintptr_t)v.buffer), "write to its memory");
}

static void by_writev(const char *path)
{
	struct victim v = victim(path);
	struct iovec here = { request, strlen(request) }, there = { v.buffer, strlen(request) };
	must(process_vm_writev(v.pid, &here, 1, &there, 1, 0), "process_vm_writev");
}

static void by_ptrace(const char *path)
{
	struct victim v = victim(path);
	must(ptrace(PTRACE_SEIZE, v.pid, 0, 0), "PTRACE_SEIZE");
	must(ptrace(PTRACE_INTERRUPT, v.pid, 0, 0), "PTRACE_INTERRUPT");
	must(waitpid(v.pid, NULL, 0), "waitpid");
	for (size_t i = 0; i < strlen(request); i += sizeof(long)) {
		long word;
		memcpy(&word, request + i, sizeof word);
		must(ptrace(PTRACE_POKEDATA, v.pid, (char *)v.buffer + i, word), "PTRACE_POKEDATA");
	}
	must(ptrace(PTRACE_DETACH, v.pid, 0, 0), "PTRACE_DETACH");
}

/* Takes a socket of another process, which is connected already. */
static void by_descriptor(const char *path)
{
	struct victim v = victim(path);
	int process = must(syscall(SYS_pidfd_open, v.pid, 0), "pidfd_open");
	say(must(syscall(SYS_pidfd_getfd, process, v.fd, 0), "pidfd_getfd"), token);
}

/* Waits for somebody outside to come, and asks then. */
static void host(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char end;
	strncpy(a.sun_path, path, sizeof a.sun_path - 1);
	unlink(path);
	int fd = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
	must(bind(fd, (struct sockaddr *)&a, sizeof a), path);
	must(chmod(path, 0777), "chmod");
	must(listen(fd, 1), "listen");
	int client = must(accept(fd, NULL, NULL), "accept");
	must(send(client, request, strlen(request), MSG_NOSIGNAL), "send");
	while (read(client, &end, 1) > 0)
		;
}

int main(int count, char **words)
{
	if (count < 5)
		return 2;
	const char *kind = words[1], *where = words[2];
	token = words[4];
	snprintf(request, sizeof request, "%s %s", words[3], token);
	alarm(5);
	if (!strcmp(kind, "stream"))
		ask(to_unix(where, SOCK_STREAM));
	else if (!strcmp(kind, "host"))
		host(where);
	else if (!strcmp(kind, "resolve"))
		resolved(to_unix(where, SOCK_STREAM));
	else if (!strcmp(kind, "pass"))
		passed(to_unix(where, SOCK_STREAM));
	else if (!strcmp(kind, "dgram"))
		must(send(to_unix(where, SOCK_DGRAM), request, strlen(request), 0), "send");
	else if (!strcmp(kind, "loopback"))
		loopback(where);
	else if (!strcmp(kind, "vsock"))
		vsock(where);
	else if (!strcmp(kind, "netlink"))
		netlink();
	else if (!strcmp(kind, "queue"))
		queue(where);
	else if (!strcmp(kind, "fifo"))
		written(where, O_WRONLY | O_NONBLOCK);
	else if (!strcmp(kind, "file"))
		written(where, O_WRONLY | O_CREAT | O_TRUNC);
	else if (!strcmp(kind, "shared"))
		shared(where);
	else if (!strcmp(kind, "mem"))
		by_memory_file(where);
	else if (!strcmp(kind, "writev"))
		by_writev(where);
	else if (!strcmp(kind, "ptrace"))
		by_ptrace(where);
	else if (!strcmp(kind, "descriptor"))
		by_descriptor(where);
	else
		return 2;
	return 0;
}
