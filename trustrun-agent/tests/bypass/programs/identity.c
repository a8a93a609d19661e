/* Hides who it is, or that anything happened at all, and then connects: identity KIND V4 TOKEN. */
#include "common.h"
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static struct sockaddr_in to;
static const char *token;

static void *leak(void *unused)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	(void)unused;
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		printf("connect: %s\n", strerrorname_np(errno));
	else
		say(fd, token);
	close(fd);
	return NULL;
}

static void in_thread(void)
{
	pthread_t t;
	pthread_create(&t, NULL, leak, NULL);
	pthread_join(t, NULL);
}

/* The first thread is gone when another one connects. */
static void *outlives(void *first)
{
	pthread_join(*(pthread_t *)first, NULL);
	leak(NULL);
	exit(0);
}

static void after_leader(void)
{
	static pthread_t self;
	pthread_t t;
	self = pthread_self();
	pthread_create(&t, NULL, outlives, &self);
	pthread_exit(NULL);
}

static void renamed(char **words)
{
	prctl(PR_SET_NAME, "kworker/0:1");
	for (char **w = words; *w; w++)
		memset(*w, 'x', strlen(*w));
	leak(NULL);
}

/* A child that lives only to connect. */
static void short_lived(void)
{
	for (int i = 0; i < 20; i++) {
		pid_t child = vfork();
		if (!child) {
			int fd = socket(AF_INET, SOCK_STREAM, 0);
			fcntl(fd, F_SETFL, O_NONBLOCK);
			connect(fd, (struct sockaddr *)&to, sizeof to);
			send(fd, token, strlen(token), MSG_NOSIGNAL);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
}

/* Process ids that come round again; /proc/sys is not ours, so only as far as they are few. */
static void reused(unsigned many)
{
	for (volatile unsigned i = 0; i < many / 50; i++) {
		pid_t child = vfork();
		if (!child)
			_exit(0);
		waitpid(child, NULL, 0);
	}
	pid_t child = fork();
	if (!child) {
		leak(NULL);
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

/* Many events, and the one that matters in their midst. */
static void flood(int peers_of_one_socket, unsigned many)
{
	struct sockaddr_in other = to;
	int one = socket(AF_INET, SOCK_DGRAM, 0);
	for (unsigned i = 0; i < many; i++) {
		int fd = peers_of_one_socket ? one : socket(AF_INET, SOCK_DGRAM, 0);
		other.sin_addr.s_addr = htonl(0xc6120000 + i); /* 198.18.0.0/15, which is nowhere */
		sendto(fd, "f", 1, 0, (struct sockaddr *)&other, sizeof other);
		if (fd != one)
			close(fd);
		if (i == many / 15 * 14)
			leak(NULL);
	}
	close(one);
	leak(NULL);
}

int main(int count, char **words)
{
	if (count < 5)
		return 2;
	const char *kind = strdup(words[1]);
	to = v4(words[2], PORT);
	token = strdup(words[3]);
	if (!strcmp(kind, "thread"))
		in_thread();
	else if (!strcmp(kind, "after_leader"))
		after_leader();
	else if (!strcmp(kind, "renamed"))
		renamed(words);
	else if (!strcmp(kind, "short_lived"))
		short_lived();
	else if (!strcmp(kind, "pid_reused"))
		reused((unsigned)atoi(words[4]));
	else if (!strcmp(kind, "flood_sockets"))
		flood(0, (unsigned)atoi(words[4]));
	else if (!strcmp(kind, "flood_peers"))
		flood(1, (unsigned)atoi(words[4]));
	else
		return 2;
	return 0;
}
