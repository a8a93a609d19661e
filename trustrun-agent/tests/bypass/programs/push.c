/* Pushes a line into the input of its terminal: push LINE. */
#include "common.h"
#include <sys/ioctl.h>

int main(int count, char **words)
{
	int terminal = must(open("/dev/tty", O_RDWR), "first: /dev/tty");
	for (const char *c = count > 1 ? words[1] : ""; *c; c++)
		must(ioctl(terminal, TIOCSTI, c), "TIOCSTI");
	must(ioctl(terminal, TIOCSTI, "\n"), "TIOCSTI");
	return 0;
}
