// One libzmq context and its sockets, as values that close themselves. Errors of libzmq become
// Results here; nothing above sees errno. Thread: the loop's.
#pragma once

#include <zmq.h>

#include <chrono>
#include <string>

#include "common/ids.h"
#include "common/result.h"

namespace detente {

class ZmqContext {
  public:
    explicit ZmqContext(int io_threads);
    ~ZmqContext() { terminate(); }
    ZmqContext(const ZmqContext&) = delete;
    ZmqContext& operator=(const ZmqContext&) = delete;
    // Waits until every closed socket's linger is over. Requires: all sockets closed.
    void terminate();
    void* get() { return context_; }

  private:
    void* context_ = nullptr;
};

enum class SocketKind { router, dealer };
enum class SendOutcome { sent, full, unreachable };

class ZmqSocket {
  public:
    ZmqSocket() = default;
    // A dealer introduces itself with `routing_id`; a router ignores it.
    ZmqSocket(ZmqContext& context, SocketKind kind, const std::string& routing_id);
    ~ZmqSocket() { close(Nanos{0}); }
    ZmqSocket(ZmqSocket&& other) noexcept;
    ZmqSocket& operator=(ZmqSocket&& other) noexcept;

    // The address it is bound to, a free port filled in. io, with the address, if it is taken.
    Result<std::string> bind(const std::string& address);
    Result<void> connect(const std::string& address);
    // Gives what was sent up to `linger` to leave.
    void close(Nanos linger);

    // Takes `frame` if sent; leaves it to the caller otherwise.
    SendOutcome send(zmq_msg_t& frame, bool more);
    // False when nothing is there.
    bool receive(zmq_msg_t& frame);
    void* get() { return socket_; }
    bool open() const { return socket_ != nullptr; }

  private:
    void set(int option, int value);
    void* socket_ = nullptr;
};

}  // namespace detente
