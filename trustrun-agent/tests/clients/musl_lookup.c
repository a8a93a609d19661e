/* getaddrinfo(3) of each name, for a C library that is not glibc's: built with musl-gcc. See README.md. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

int main(int argc, char **argv) {
    struct timespec start, end;
    int failures = 0;
    if (argc < 2) {
        fprintf(stderr, "musl_lookup NAME...\n");
        return 2;
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    printf("{\"answers\": {");
    for (int i = 1; i < argc; i++) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
        char text[INET6_ADDRSTRLEN] = "";
        int code = getaddrinfo(argv[i], "443", &hints, &list);
        if (code == 0 && list->ai_family == AF_INET)
            inet_ntop(AF_INET, &((struct sockaddr_in *)list->ai_addr)->sin_addr, text, sizeof text);
        else if (code == 0)
            inet_ntop(AF_INET6, &((struct sockaddr_in6 *)list->ai_addr)->sin6_addr, text, sizeof text);
        else
            failures++;
        printf("%s\"%s\": \"%s\"", i > 1 ? ", " : "", argv[i], code ? gai_strerror(code) : text);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    long ms = (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000;
    printf("}, \"ok\": %s, \"ms\": %ld}\n", failures ? "false" : "true", ms);
    return failures ? 1 : 0;
}
