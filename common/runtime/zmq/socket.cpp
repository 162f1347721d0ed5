#include "common/runtime/zmq/socket.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/codec/codec.h"
#include "common/invariant.h"

namespace detente {
namespace {

// Messages per peer. Credit in bytes bounds what is in flight; this is the backstop.
constexpr int kHighWaterMessages = 512;
constexpr int kBacklog = 1024;
constexpr int kReconnectMs = 50;
constexpr int kMostReconnectMs = 1000;
// A local socket holds 208 KiB by default and wakes its writer when three quarters are read: the
// two ends take turns instead of working at once. This is half a message; more costs pushes what
// the nearer caches hold. TCP finds its own size. Memory is taken only for what is on its way.
constexpr int kIpcBufferBytes = 512 << 10;

// For the connections made from now on.
void size_buffer_for(void* socket, const std::string& address) {
    if (!address.starts_with("ipc://")) return;
    const int status = zmq_setsockopt(socket, ZMQ_SNDBUF, &kIpcBufferBytes, sizeof kIpcBufferBytes);
    invariant(status == 0, "libzmq knows the socket options we set");
}

Error address_error(const char* doing, const std::string& address) {
    std::string text =
        std::string("cannot ") + doing + " " + address + ": " + zmq_strerror(zmq_errno());
    if (zmq_errno() == EADDRINUSE) {
        text += "; another process uses this port: end it, or let the port be chosen (port 0)";
    } else if (zmq_errno() == ENODEV || zmq_errno() == EADDRNOTAVAIL) {
        text += "; no interface of this host has that address: set transport.bind_address";
    }
    return fail(ErrorCode::io, std::move(text));
}

}  // namespace

ZmqContext::ZmqContext(int io_threads) : context_(zmq_ctx_new()) {
    invariant(context_ != nullptr, "libzmq can allocate its context");
    zmq_ctx_set(context_, ZMQ_IO_THREADS, std::max(1, io_threads));
    zmq_ctx_set(context_, ZMQ_IPV6, 0);
}

void ZmqContext::terminate() {
    if (context_ == nullptr) return;
    while (zmq_ctx_term(context_) != 0 && zmq_errno() == EINTR) {
    }
    context_ = nullptr;
}

ZmqSocket::ZmqSocket(ZmqContext& context, SocketKind kind, const std::string& routing_id)
    : socket_(zmq_socket(context.get(), kind == SocketKind::router ? ZMQ_ROUTER : ZMQ_DEALER)) {
    invariant(socket_ != nullptr, "libzmq can open a socket (ulimit -n)");
    set(ZMQ_SNDHWM, kHighWaterMessages);
    set(ZMQ_RCVHWM, kHighWaterMessages);
    set(ZMQ_RECONNECT_IVL, kReconnectMs);
    set(ZMQ_RECONNECT_IVL_MAX, kMostReconnectMs);
    // A frame is a header or the payload of one message; longer ones end their connection.
    const auto most = static_cast<std::int64_t>(std::max(kMostHeaderBytes, kMostMessageBytes));
    zmq_setsockopt(socket_, ZMQ_MAXMSGSIZE, &most, sizeof most);
    if (kind == SocketKind::router) {
        set(ZMQ_ROUTER_MANDATORY, 1);
        set(ZMQ_ROUTER_HANDOVER, 1);
        set(ZMQ_BACKLOG, kBacklog);
    } else {
        zmq_setsockopt(socket_, ZMQ_ROUTING_ID, routing_id.data(), routing_id.size());
    }
}

ZmqSocket::ZmqSocket(ZmqSocket&& other) noexcept : socket_(std::exchange(other.socket_, nullptr)) {}

ZmqSocket& ZmqSocket::operator=(ZmqSocket&& other) noexcept {
    std::swap(socket_, other.socket_);
    return *this;
}

void ZmqSocket::set(int option, int value) {
    const int status = zmq_setsockopt(socket_, option, &value, sizeof value);
    invariant(status == 0, "libzmq knows the socket options we set");
}

Result<std::string> ZmqSocket::bind(const std::string& address) {
    size_buffer_for(socket_, address);
    if (zmq_bind(socket_, address.c_str()) != 0) return address_error("bind", address);
    std::array<char, 512> bound{};
    std::size_t size = bound.size();
    if (zmq_getsockopt(socket_, ZMQ_LAST_ENDPOINT, bound.data(), &size) != 0) {
        return address_error("ask for the address of", address);
    }
    return std::string(bound.data());
}

Result<void> ZmqSocket::connect(const std::string& address) {
    size_buffer_for(socket_, address);
    if (zmq_connect(socket_, address.c_str()) != 0) return address_error("connect to", address);
    return {};
}

void ZmqSocket::close(Nanos linger) {
    if (socket_ == nullptr) return;
    const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(linger);
    set(ZMQ_LINGER, static_cast<int>(milliseconds.count()));
    zmq_close(socket_);
    socket_ = nullptr;
}

SendOutcome ZmqSocket::send(zmq_msg_t& frame, bool more) {
    const int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
    for (;;) {
        if (zmq_msg_send(&frame, socket_, flags) >= 0) return SendOutcome::sent;
        if (zmq_errno() == EINTR) continue;
        return zmq_errno() == EAGAIN ? SendOutcome::full : SendOutcome::unreachable;
    }
}

bool ZmqSocket::receive(zmq_msg_t& frame) {
    for (;;) {
        if (zmq_msg_recv(&frame, socket_, ZMQ_DONTWAIT) >= 0) return true;
        if (zmq_errno() != EINTR) return false;
    }
}

}  // namespace detente
