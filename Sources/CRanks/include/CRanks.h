// Sockets between ranks: the parts of POSIX whose types differ between C libraries, in a few functions.
//
// Sockets do not block, their failures come back as negative errno values, and a peer that is gone raises no signal.
#ifndef FLASHINFER_CRANKS_H
#define FLASHINFER_CRANKS_H

#include <stddef.h>
#include <stdint.h>

/// What `fi_socket_accept`, `fi_socket_send` and `fi_socket_receive` return where they would wait.
enum { FI_SOCKET_LATER = -100000 };

/// Listens on an address of this machine: `host` and `port`, port 0 for any that is free, which is written to `bound`.
///
/// A `host` that is a loopback address is bound to as it is; any other host stands for all addresses of this machine.
/// Returns a socket, -errno, or -1000 - n for error n of getaddrinfo.
int fi_socket_listen(const char *_Nonnull host, uint16_t port, uint16_t *_Nonnull bound);

/// Connects, trying every address of `host`, each for at most `milliseconds`. Returns as `fi_socket_listen` does.
int fi_socket_connect(const char *_Nonnull host, uint16_t port, int milliseconds);

/// The next connection of a listening socket, FI_SOCKET_LATER where there is none yet, or -errno.
int fi_socket_accept(int listener);

/// Writes the peer's numeric address, with its zero, into `text`. Returns 0 or -errno.
int fi_socket_peer(int socket, char *_Nonnull text, size_t size);

/// Bytes sent or received, FI_SOCKET_LATER, or -errno. 0 received bytes: the peer has closed.
ptrdiff_t fi_socket_send(int socket, const void *_Nonnull bytes, size_t count);
ptrdiff_t fi_socket_receive(int socket, void *_Nonnull bytes, size_t count);

/// Whether the peer has closed and all that it sent was received; takes nothing of what is there. 0 or 1.
int fi_socket_is_closed(int socket);

/// What a socket is waited for.
typedef struct {
    int socket;
    /// Wanted, and then found: bit 0 to receive (or the peer has closed), bit 1 to send.
    int events;
} fi_socket_wait;

/// Waits for any of some sockets for at most `milliseconds`. Returns how many are ready, 0 for none, -errno.
int fi_sockets_wait(fi_socket_wait *_Nullable waits, size_t count, int milliseconds);

void fi_socket_close(int socket);

/// The text of what the functions above return below 0. Never null; lasts until the thread's next call.
const char *_Nonnull fi_socket_error(int status);

/// Milliseconds of a clock that only goes forward.
int64_t fi_milliseconds(void);

#endif
