#define _GNU_SOURCE
#include "CRanks.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static const int resolver_base = 1000;

static int resolve(const char *host, uint16_t port, struct addrinfo **list) {
    char service[8];
    snprintf(service, sizeof service, "%u", (unsigned)port);
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    int status = getaddrinfo(host, service, &hints, list);
    return status == 0 ? 0 : -resolver_base - (status < 0 ? -status : status);
}

// A socket that neither blocks nor raises signals nor waits to fill packets.
static int prepared(int handle) {
    if (handle < 0) return -errno;
    const int one = 1;
    int flags = fcntl(handle, F_GETFL, 0);
    if (flags < 0 || fcntl(handle, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(handle, F_SETFD, FD_CLOEXEC) < 0) {
        int error = errno;
        close(handle);
        return -error;
    }
    setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
#ifdef SO_NOSIGPIPE
    setsockopt(handle, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
#endif
    return handle;
}

static bool is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) {
        return (ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24) == 127;
    }
    return address->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

static int listen_at(const struct sockaddr *address, socklen_t size, uint16_t *bound) {
    int handle = prepared(socket(address->sa_family, SOCK_STREAM, 0));
    if (handle < 0) return handle;
    const int one = 1;
    setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_storage own;
    socklen_t own_size = sizeof own;
    if (bind(handle, address, size) < 0 || listen(handle, 1024) < 0 ||
        getsockname(handle, (struct sockaddr *)&own, &own_size) < 0) {
        int error = errno;
        close(handle);
        return -error;
    }
    *bound = ntohs(own.ss_family == AF_INET ? ((struct sockaddr_in *)&own)->sin_port
                                            : ((struct sockaddr_in6 *)&own)->sin6_port);
    return handle;
}

int fi_socket_listen(const char *host, uint16_t port, uint16_t *bound) {
    struct addrinfo *list = 0;
    int status = resolve(host, port, &list);
    if (status < 0) return status;
    if (is_loopback(list->ai_addr)) {
        status = listen_at(list->ai_addr, list->ai_addrlen, bound);
    } else if (list->ai_family == AF_INET) {
        const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
        status = listen_at((const struct sockaddr *)&any, sizeof any, bound);
    } else {
        const struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_any};
        status = listen_at((const struct sockaddr *)&any, sizeof any, bound);
    }
    freeaddrinfo(list);
    return status;
}

static int connect_to(const struct addrinfo *address, int milliseconds) {
    int handle = prepared(socket(address->ai_family, SOCK_STREAM, 0));
    if (handle < 0) return handle;
    int error = 0;
    if (connect(handle, address->ai_addr, address->ai_addrlen) < 0) {
        error = errno;
        if (error == EINPROGRESS || error == EINTR) {
            struct pollfd wait = {.fd = handle, .events = POLLOUT};
            socklen_t size = sizeof error;
            int found = poll(&wait, 1, milliseconds);
            if (found == 0) error = ETIMEDOUT;
            else if (found < 0 || getsockopt(handle, SOL_SOCKET, SO_ERROR, &error, &size) < 0) error = errno;
        }
    }
    if (error == 0) return handle;
    close(handle);
    return -error;
}

int fi_socket_connect(const char *host, uint16_t port, int milliseconds) {
    struct addrinfo *list = 0;
    int status = resolve(host, port, &list);
    if (status < 0) return status;
    for (struct addrinfo *address = list; address; address = address->ai_next) {
        status = connect_to(address, milliseconds);
        if (status >= 0) break;
    }
    freeaddrinfo(list);
    return status;
}

// The status of a call that failed.
static int failed(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? FI_SOCKET_LATER : -errno; }

int fi_socket_accept(int listener) {
    int handle = accept(listener, 0, 0);
    return handle < 0 ? failed() : prepared(handle);
}

int fi_socket_peer(int handle, char *text, size_t size) {
    struct sockaddr_storage peer;
    socklen_t peer_size = sizeof peer;
    if (getpeername(handle, (struct sockaddr *)&peer, &peer_size) < 0) return -errno;
    return getnameinfo((struct sockaddr *)&peer, peer_size, text, (socklen_t)size, 0, 0, NI_NUMERICHOST) == 0
               ? 0 : -EADDRNOTAVAIL;
}

ptrdiff_t fi_socket_send(int handle, const void *bytes, size_t count) {
    ssize_t sent = send(handle, bytes, count, MSG_NOSIGNAL);
    return sent >= 0 ? sent : failed();
}

ptrdiff_t fi_socket_receive(int handle, void *bytes, size_t count) {
    ssize_t received = recv(handle, bytes, count, 0);
    return received >= 0 ? received : failed();
}

int fi_socket_is_closed(int handle) {
    char next;
    ssize_t received = recv(handle, &next, 1, MSG_PEEK);
    if (received >= 0) return received == 0;
    return errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
}

int fi_sockets_wait(fi_socket_wait *waits, size_t count, int milliseconds) {
    enum { most = 1024 };
    struct pollfd polled[most];
    if (count > most) return -EINVAL;
    for (size_t i = 0; i < count; i++) {
        polled[i] = (struct pollfd){.fd = waits[i].socket,
                                    .events = (short)((waits[i].events & 1 ? POLLIN : 0) |
                                                      (waits[i].events & 2 ? POLLOUT : 0))};
    }
    int ready = poll(polled, (nfds_t)count, milliseconds);
    if (ready < 0) {
        if (errno != EINTR) return -errno;
        ready = 0;
    }
    for (size_t i = 0; i < count; i++) {
        int wanted = waits[i].events;
        short found = ready > 0 ? polled[i].revents : 0;
        // Errors are found by the call that was waited for.
        if (found & (POLLERR | POLLHUP | POLLNVAL)) waits[i].events = wanted;
        else waits[i].events = (found & POLLIN ? 1 : 0) | (found & POLLOUT ? 2 : 0);
    }
    return ready;
}

void fi_socket_close(int handle) { close(handle); }

const char *fi_socket_error(int status) {
    if (status > -resolver_base) return strerror(-status);
    int code = -status - resolver_base;
    return gai_strerror(EAI_NONAME < 0 ? -code : code);
}

int64_t fi_milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
