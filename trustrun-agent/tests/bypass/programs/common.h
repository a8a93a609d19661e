/* What the programs of the bypass suite share: how they end, and how an address is written.
 *
 * 0: it did all that it wanted; 1: it was refused (errno is printed); 2: wrong arguments;
 * 3: this machine cannot do it at all. Nobody takes these for the answer: the far end judges. A message
 * that begins with "first:" says that the program did not get as far as to try, and the test is worth nothing. */
#ifndef COMMON_H
#define COMMON_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* discard, over TCP and UDP, on every address of the lab. */
#define PORT 9

static inline _Noreturn void ends(const char *what)
{
	int e = errno;
	int lacking = e == EPROTONOSUPPORT || e == EAFNOSUPPORT || e == ESOCKTNOSUPPORT || e == ENOSYS || e == ENODEV ||
		      e == ENOPROTOOPT || e == EOPNOTSUPP;
	printf("%s: %s (%s)\n", what, strerrorname_np(e), strerror(e));
	exit(lacking ? 3 : 1);
}

static inline int must(long result, const char *what)
{
	if (result < 0)
		ends(what);
	return (int)result;
}

static inline struct sockaddr_in v4(const char *text, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	if (inet_pton(AF_INET, text, &a.sin_addr) != 1)
		exit(2);
	return a;
}

static inline struct sockaddr_in6 v6(const char *text, int port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	if (inet_pton(AF_INET6, text, &a.sin6_addr) != 1)
		exit(2);
	return a;
}

/* A socket that waits for nobody for long. */
static inline int sock(int family, int type, int protocol)
{
	struct timeval t = { .tv_sec = 3 };
	int fd = must(socket(family, type, protocol), "socket");
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	return fd;
}

static inline void say(int fd, const char *token)
{
	must(send(fd, token, strlen(token), MSG_NOSIGNAL), "send");
	shutdown(fd, SHUT_WR);
}

static inline unsigned short checksum(const void *data, size_t length)
{
	const unsigned char *p = data;
	unsigned long sum = 0;
	for (size_t i = 0; i + 1 < length; i += 2)
		sum += p[i] << 8 | p[i + 1];
	if (length & 1)
		sum += p[length - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons(~sum & 0xffff);
}
#endif
