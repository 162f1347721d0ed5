#include "launch/control_connection.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <charconv>
#include <utility>

#include "common/codec/codec.h"

namespace detente {

namespace asio = boost::asio;
using ErrorOfAsio = boost::system::error_code;

ControlConnection::ControlConnection(asio::ip::tcp::socket socket)
    : socket_(std::move(socket)), last_word_timer_(socket_.get_executor()) {
    ErrorOfAsio ignored;
    const auto endpoint = socket_.remote_endpoint(ignored);
    peer_ = ignored ? "a peer that left at once"
                    : fmt::format("{}:{}", endpoint.address().to_string(), endpoint.port());
    socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
}

void ControlConnection::start(Callbacks callbacks) {
    callbacks_ = std::move(callbacks);
    read_length();
}

void ControlConnection::read_length() {
    incoming_.resize(4);
    asio::async_read(socket_, asio::buffer(incoming_),
                     [self = shared_from_this()](const ErrorOfAsio& error, std::size_t) {
                         if (error) return self->closed(error.message());
                         const Result<std::size_t> total = stream_length(self->incoming_);
                         if (total.has_error()) return self->closed(total.error().text);
                         self->read_rest(*total);
                     });
}

void ControlConnection::read_rest(std::size_t total) {
    incoming_.resize(total);
    asio::async_read(socket_, asio::buffer(incoming_.data() + 4, total - 4),
                     [self = shared_from_this()](const ErrorOfAsio& error, std::size_t) {
                         if (error) return self->closed(error.message());
                         Result<Message> message = decode_stream(self->incoming_);
                         if (message.has_error()) return self->closed(message.error().text);
                         if (self->state_ >= State::ending) return;
                         // A copy: the callback may close this connection, callbacks and all.
                         const auto received = self->callbacks_.received;
                         received(std::move(*message));
                         if (self->state_ != State::closed) self->read_length();
                     });
}

void ControlConnection::send(const Message& message) {
    if (state_ != State::open) return;
    outgoing_.push_back(encode_stream(message));
    queued_bytes_ += outgoing_.back().size();
    if (queued_bytes_ > kMostQueuedControlBytes) {
        return closed(
            fmt::format("{} does not read: {} MiB wait for it", peer_, queued_bytes_ >> 20U));
    }
    if (outgoing_.size() == 1) write_next();
}

void ControlConnection::write_next() {
    asio::async_write(socket_, asio::buffer(outgoing_.front()),
                      [self = shared_from_this()](const ErrorOfAsio& error, std::size_t) {
                          if (self->state_ == State::closed) return;
                          if (error) {
                              // What it said before it left may not have been read yet: reading
                              // ends with its end, and closes.
                              self->outgoing_.clear();
                              self->queued_bytes_ = 0;
                              self->state_ = std::max(self->state_, State::leaving);
                              return self->all_written();
                          }
                          self->queued_bytes_ -= self->outgoing_.front().size();
                          self->outgoing_.pop_front();
                          if (!self->outgoing_.empty()) return self->write_next();
                          self->all_written();
                      });
}

void ControlConnection::all_written() {
    if (state_ == State::ending) return close();
    ErrorOfAsio ignored;  // whoever cannot be told has closed
    if (state_ == State::leaving) socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
}

void ControlConnection::leave(std::function<void()> gone) {
    if (state_ >= State::ending) return gone();
    callbacks_ = {.received = [](Message&&) {},
                  .closed = [gone = std::move(gone)](const std::string&) { gone(); }};
    state_ = State::leaving;
    if (outgoing_.empty()) all_written();
}

void ControlConnection::close() {
    if (state_ == State::closed) return;
    state_ = State::closed;
    callbacks_ = {};
    last_word_timer_.cancel();
    ErrorOfAsio ignored;
    socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
    socket_.close(ignored);
}

void ControlConnection::close_after_last_word() {
    if (state_ >= State::ending) return;
    if (outgoing_.empty()) return close();
    state_ = State::ending;
    callbacks_ = {};
    last_word_timer_.expires_after(kLastWordDeadline);
    last_word_timer_.async_wait([self = shared_from_this()](const ErrorOfAsio& cancelled) {
        if (!cancelled) self->close();
    });
}

void ControlConnection::closed(const std::string& reason) {
    if (state_ == State::closed) return;
    const auto tell = std::move(callbacks_.closed);
    close();
    if (tell) tell(reason);
}

Result<HostPort> parse_address(const std::string& address) {
    const std::size_t colon = address.rfind(':');
    HostPort result;
    if (colon != std::string::npos && colon != 0) {
        const char* first = address.data() + colon + 1;
        const char* last = address.data() + address.size();
        const auto [end, error] = std::from_chars(first, last, result.port);
        if (error == std::errc() && end == last && first != last) {
            result.host = address.substr(0, colon);
        }
    }
    if (result.host.find(':') != std::string::npos) {
        return fail(ErrorCode::bad_job,
                    fmt::format("\"{}\": nobody listens on IPv6 addresses here: expected a name or "
                                "an IPv4 address, for example node1:29500 or 10.0.0.1:29500",
                                address));
    }
    if (!result.host.empty()) return result;
    return fail(ErrorCode::bad_job,
                fmt::format("\"{}\" is no address: expected host:port, for example 10.0.0.1:29500",
                            address));
}

}  // namespace detente
