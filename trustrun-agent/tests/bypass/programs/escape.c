/* What a program does to leave its session, or to blind it: escape KIND ... Afterwards it runs the command that follows,
 * whose connection is the proof. Everything here touches the processes and programs of its own session only: the same
 * program also runs without TrustRun, on a machine where other sessions may be. */
#include "common.h"
#include <ctype.h>
#include <dirent.h>
#include <linux/bpf.h>
#include <sched.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void run(char **command)
{
	pid_t child = fork();
	if (!child) {
		execvp(command[0], command);
		_exit(127);
	}
	waitpid(child, NULL, 0);
}

/* The parent of a process and its name; 0 where there is none. */
static int parent(int pid, char name[64])
{
	char path[64], line[512];
	int up = 0;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	FILE *f = fopen(path, "r");
	if (f && fgets(line, sizeof line, f)) {
		char *end = strrchr(line, ')');
		snprintf(name, 64, "%.*s", (int)(end - strchr(line, '(') - 1), strchr(line, '(') + 1);
		sscanf(end + 2, "%*c %d", &up);
	}
	if (f)
		fclose(f);
	return up;
}

/* The agent's processes: those of our ancestors that are it, and their children that are. */
static int agent(int found[16])
{
	char name[64];
	int count = 0;
	for (int pid = getpid(); pid > 1; pid = parent(pid, name))
		if (parent(pid, name) && !strcmp(name, "trustrun"))
			found[count++] = pid;
	for (int round = 0; round < 2; round++) {
		DIR *d = opendir("/proc");
		for (struct dirent *e; d && (e = readdir(d)) && count < 16;) {
			int pid = atoi(e->d_name), up = pid > 0 ? parent(pid, name) : 0, known = 0, ours = 0;
			for (int i = 0; i < count; i++)
				known |= found[i] == pid, ours |= found[i] == up;
			if (ours && !known && !strcmp(name, "trustrun"))
				found[count++] = pid;
		}
		if (d)
			closedir(d);
	}
	return count;
}

/* escape agent kill|stop COMMAND: while it is gone or stopped, the command runs. */
static void without_agent(int stops, char **command)
{
	int pids[16], count = agent(pids), hit = 0;
	for (int i = 0; i < count; i++)
		hit += !kill(pids[i], stops ? SIGSTOP : SIGKILL);
	printf("agent: %d processes, %d hit\n", count, hit);
	fflush(stdout);
	run(command);
	for (int i = 0; stops && i < count; i++)
		kill(pids[i], SIGCONT);
}

static long bpf(int command, union bpf_attr *a) { return syscall(SYS_bpf, command, a, sizeof *a); }

/* The session's own cgroup; 0 where we are in none. */
static uint64_t own_cgroup(void)
{
	char line[512], path[600];
	struct stat s;
	FILE *f = fopen("/proc/self/cgroup", "r");
	while (f && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		if (strncmp(line, "0::", 3) || !strstr(line, "/trustrun/"))
			continue;
		for (int i = 0; i < 2; i++) {
			snprintf(path, sizeof path, "%s%s", i ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified", line + 3);
			if (!stat(path, &s))
				return s.st_ino;
		}
	}
	return 0;
}

/* Detaches every link on our own cgroup. */
static void detach(void)
{
	uint64_t own = own_cgroup();
	int tried = 0, done = 0;
	for (union bpf_attr a = { .start_id = 0 }; own && !bpf(BPF_LINK_GET_NEXT_ID, &a);) {
		uint32_t id = a.next_id;
		struct bpf_link_info info = { 0 };
		union bpf_attr get = { .link_id = id };
		int fd = (int)bpf(BPF_LINK_GET_FD_BY_ID, &get);
		union bpf_attr ask = { .info = { .bpf_fd = (uint32_t)fd, .info_len = sizeof info, .info = (uint64_t)&info } };
		if (fd >= 0 && !bpf(BPF_OBJ_GET_INFO_BY_FD, &ask) && info.type == BPF_LINK_TYPE_CGROUP && info.cgroup.cgroup_id == own) {
			union bpf_attr off = { .link_detach = { .link_fd = (uint32_t)fd } };
			tried++, done += !bpf(BPF_LINK_DETACH, &off);
		}
		close(fd);
		a = (union bpf_attr){ .start_id = id };
	}
	printf("links: %d found, %d detached\n", tried, done);
	fflush(stdout);
}

/* A child that is born in another cgroup. */
static void into(const char *cgroup, char **command)
{
	struct clone_args a = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD };
	a.cgroup = (uint64_t)must(open(cgroup, O_RDONLY | O_DIRECTORY), cgroup);
	long child = syscall(SYS_clone3, &a, sizeof a);
	if (!child) {
		execvp(command[0], command);
		_exit(127);
	}
	must(child, "clone3");
	waitpid((pid_t)child, NULL, 0);
}

static void text(const char *path, const char *words)
{
	int fd = open(path, O_WRONLY);
	if (fd >= 0 && write(fd, words, strlen(words)) < 0)
		printf("%s: %s\n", path, strerrorname_np(errno));
	close(fd);
}

/* A fresh mount of cgroup2, which no read-only bind mount covers, and a move to its root. */
static void mounted(void)
{
	char map[64];
	unsigned uid = getuid(), gid = getgid();
	must(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP), "unshare");
	snprintf(map, sizeof map, "0 %u 1", uid);
	text("/proc/self/uid_map", map);
	text("/proc/self/setgroups", "deny");
	snprintf(map, sizeof map, "0 %u 1", gid);
	text("/proc/self/gid_map", map);
	int context = must(syscall(SYS_fsopen, "cgroup2", 0), "fsopen");
	must(syscall(SYS_fsconfig, context, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0), "fsconfig");
	int root = must(syscall(SYS_fsmount, context, 0, 0), "fsmount");
	int procs = must(openat(root, "cgroup.procs", O_WRONLY), "cgroup.procs");
	must(write(procs, "0", 1), "moving to the root of it");
}

/* Doors that root would have others go through: whether the kernel lets one open them at all. */
static void module(void)
{
	int fd = must(memfd_create("m", 0), "first: memfd_create");
	must(write(fd, "no module", 9), "first: write");
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != ENOEXEC)
		ends("finit_module");
}

static void program(void)
{
	/* r0 = 0; exit */
	struct bpf_insn code[] = { { .code = 0xb7 }, { .code = 0x95 } };
	union bpf_attr a = { .prog_type = BPF_PROG_TYPE_CGROUP_SKB, .insns = (uint64_t)code, .insn_cnt = 2, .license = (uint64_t)"MIT" };
	must(bpf(BPF_PROG_LOAD, &a), "BPF_PROG_LOAD");
}

int main(int count, char **words)
{
	const char *kind = count > 1 ? words[1] : "";
	if (!strcmp(kind, "agent") && count > 3)
		without_agent(!strcmp(words[2], "stop"), words + 3);
	else if (!strcmp(kind, "detach") && count > 2)
		detach(), run(words + 2);
	else if (!strcmp(kind, "into") && count > 3)
		into(words[2], words + 3);
	else if (!strcmp(kind, "mount") && count > 2) {
		/* In a child: what fails in it leaves us a connection to try. */
		pid_t child = fork();
		if (!child) {
			mounted();
			run(words + 2);
			_exit(0);
		}
		waitpid(child, NULL, 0);
		run(words + 2);
	} else if (!strcmp(kind, "module"))
		module();
	else if (!strcmp(kind, "program"))
		program();
	else
		return 2;
	return 0;
}
