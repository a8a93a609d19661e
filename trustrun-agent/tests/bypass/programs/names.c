/* Names as a way out: lookups that carry data, answers that mislead, and claims about whom one talks to.
 *   names udp|tcp TYPE NAME SERVER            asks, and takes what comes
 *   names many NAME SERVER TOKEN              forty questions with data in them
 *   names self SERVER NAME V4                 plays the resolver, and answers its own question with V4
 *   names hello V4 PORT SNI INNER             a ClientHello whose encrypted part (ECH) names INNER
 *   names datagram V4 PORT TOKEN              a datagram, as QUIC would send it
 *   names say V4 PORT TOKEN                   a connection to any port
 *   names listen PORT TOKEN                   waits for a connection, and answers it
 *   names visit V4 PORT                       connects from elsewhere until it is answered */
#include "common.h"
#include <poll.h>
#include <time.h>

static size_t question(unsigned char *out, const char *name, int type)
{
	unsigned char head[12] = { (unsigned char)getpid(), (unsigned char)type, 1, 0, 0, 1 };
	unsigned char *at = out + sizeof head;
	memcpy(out, head, sizeof head);
	while (*name) {
		size_t length = strcspn(name, ".");
		*at++ = (unsigned char)length;
		memcpy(at, name, length);
		at += length;
		name += length + (name[length] == '.');
	}
	*at++ = 0;
	unsigned char tail[4] = { (unsigned char)(type >> 8), (unsigned char)type, 0, 1 };
	memcpy(at, tail, sizeof tail);
	return (size_t)(at + sizeof tail - out);
}

/* Takes packets until none has come for a while. */
static int taken(int fd)
{
	unsigned char answer[4096];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int count = 0;
	while (poll(&p, 1, count ? 50 : 400) > 0 && recv(fd, answer, sizeof answer, 0) > 0)
		count++;
	return count;
}

static int by_udp(const char *name, int type, const char *server)
{
	unsigned char message[512];
	struct sockaddr_in to = v4(server, 53);
	int fd = sock(AF_INET, SOCK_DGRAM, 0);
	must(sendto(fd, message, question(message, name, type), 0, (struct sockaddr *)&to, sizeof to), "sendto");
	int count = taken(fd);
	close(fd);
	return count;
}

static int by_tcp(const char *name, int type, const char *server)
{
	unsigned char message[514];
	struct sockaddr_in to = v4(server, 53);
	int fd = sock(AF_INET, SOCK_STREAM, 0);
	must(connect(fd, (struct sockaddr *)&to, sizeof to), "connect");
	size_t length = question(message + 2, name, type);
	message[0] = (unsigned char)(length >> 8), message[1] = (unsigned char)length;
	must(send(fd, message, length + 2, MSG_NOSIGNAL), "send");
	return taken(fd);
}

static void many(const char *name, const char *server, const char *token)
{
	char asked[256];
	for (int i = 0; i < 40; i++) {
		snprintf(asked, sizeof asked, "%02d%s%040x.%040x.%s", i, token, i * 7919, i * 104729, name);
		by_udp(asked, 1, server);
	}
}

static void self(const char *server, const char *name, const char *address)
{
	unsigned char message[512];
	struct sockaddr_in own = v4(server, 53), from;
	struct in_addr answer = v4(address, 0).sin_addr;
	socklen_t size = sizeof from;
	int resolver = sock(AF_INET, SOCK_DGRAM, 0), client = sock(AF_INET, SOCK_DGRAM, 0);
	must(bind(resolver, (struct sockaddr *)&own, sizeof own), "bind");
	must(sendto(client, message, question(message, name, 1), 0, (struct sockaddr *)&own, sizeof own), "sendto");
	ssize_t length = must(recvfrom(resolver, message, sizeof message - 16, 0, (struct sockaddr *)&from, &size), "recvfrom");
	unsigned char record[12] = { 0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4 };
	message[2] |= 0x80, message[7] = 1;
	memcpy(message + length, record, sizeof record);
	memcpy(message + length + sizeof record, &answer, 4);
	must(sendto(resolver, message, (size_t)length + 16, 0, (struct sockaddr *)&from, size), "sendto, as the resolver");
	taken(client);
}

static unsigned char *put(unsigned char *at, const void *bytes, size_t length)
{
	memcpy(at, bytes, length);
	return at + length;
}

static unsigned char *put16(unsigned char *at, size_t value)
{
	*at++ = (unsigned char)(value >> 8);
	*at++ = (unsigned char)value;
	return at;
}

/* RFC 8446, 4.1.2, with server_name (RFC 6066) and encrypted_client_hello (RFC 9849). */
static void hello(const char *address, int port, const char *sni, const char *inner)
{
	unsigned char body[1024] = { 3, 3 }, message[1100] = { 22, 3, 1 }, *at = body + 34, *extensions;
	size_t name = strlen(sni), hidden = strlen(inner);
	struct sockaddr_in to = v4(address, port);
	*at++ = 0;
	at = put(at, "\0\2\x13\1\1\0", 6);
	extensions = at, at += 2;
	at = put16(put16(put16(put16(at, 0), name + 5), name + 3), 0) - 1;
	at = put(put16(at, name), sni, name);
	at = put(at, "\0\x2b\0\3\2\3\4", 7);
	at = put(at, "\0\x0a\0\4\0\2\0\x1d", 8);
	at = put(at, "\0\x0d\0\4\0\2\4\3", 8);
	at = put16(put16(at, 0xfe0d), 10 + 32 + hidden);
	at = put(at, "\0\0\1\0\1\7\0\x20", 8) + 32;
	at = put(put16(at, hidden), inner, hidden);
	put16(extensions, (size_t)(at - extensions - 2));
	size_t length = (size_t)(at - body);
	put16(message + 3, length + 4);
	message[5] = 1;
	put16(message + 7, length);
	memcpy(message + 9, body, length);
	int fd = sock(AF_INET, SOCK_STREAM, 0);
	must(connect(fd, (struct sockaddr *)&to, sizeof to), "connect");
	must(send(fd, message, length + 9, MSG_NOSIGNAL), "send");
	taken(fd);
}

static void said(const char *address, int port, const char *token, int type)
{
	struct sockaddr_in to = v4(address, port);
	int fd = sock(AF_INET, type, 0);
	must(connect(fd, (struct sockaddr *)&to, sizeof to), "connect");
	say(fd, token);
}

static void listening(int port, const char *token)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = sock(AF_INET, SOCK_STREAM, 0), on = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	must(bind(fd, (struct sockaddr *)&any, sizeof any), "bind");
	must(listen(fd, 1), "listen");
	int client = must(accept(fd, NULL, NULL), "accept");
	say(client, token);
	taken(client);
}

static void visit(const char *address, int port)
{
	struct sockaddr_in to = v4(address, port), from = v4("203.0.113.66", 0);
	for (;; usleep(5000)) {
		int fd = sock(AF_INET, SOCK_STREAM, 0);
		must(bind(fd, (struct sockaddr *)&from, sizeof from), "bind");
		if (!connect(fd, (struct sockaddr *)&to, sizeof to))
			taken(fd);
		close(fd);
	}
}

int main(int count, char **words)
{
	const char *kind = count > 3 ? words[1] : "";
	if (strcmp(kind, "visit"))
		alarm(9);
	if (!strcmp(kind, "udp") && count > 4)
		printf("%d packets\n", by_udp(words[3], atoi(words[2]), words[4]));
	else if (!strcmp(kind, "tcp") && count > 4)
		printf("%d packets\n", by_tcp(words[3], atoi(words[2]), words[4]));
	else if (!strcmp(kind, "many") && count > 4)
		many(words[2], words[3], words[4]);
	else if (!strcmp(kind, "self") && count > 4)
		self(words[2], words[3], words[4]);
	else if (!strcmp(kind, "hello") && count > 5)
		hello(words[2], atoi(words[3]), words[4], words[5]);
	else if (!strcmp(kind, "datagram") && count > 4)
		said(words[2], atoi(words[3]), words[4], SOCK_DGRAM);
	else if (!strcmp(kind, "say") && count > 4)
		said(words[2], atoi(words[3]), words[4], SOCK_STREAM);
	else if (!strcmp(kind, "listen"))
		listening(atoi(words[2]), words[3]);
	else if (!strcmp(kind, "visit"))
		visit(words[2], atoi(words[3]));
	else
		return 2;
	return 0;
}
