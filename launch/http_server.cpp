#include "launch/http_server.h"

#include <fmt/core.h>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <memory>
#include <utility>

namespace detente {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using ErrorOfAsio = boost::system::error_code;

namespace {
constexpr std::chrono::seconds kRequestDeadline{5};
constexpr std::size_t kMostRequestBytes = 16U << 10U;
}  // namespace

struct HttpServer::Session : std::enable_shared_from_this<HttpServer::Session> {
    Session(asio::ip::tcp::socket socket, Answer answer)
        : stream(std::move(socket)), answer_of(std::move(answer)) {
        parser.header_limit(kMostRequestBytes);
        parser.body_limit(0);
    }
    void read() {
        stream.expires_after(kRequestDeadline);
        http::async_read(stream, buffer, parser,
                         [self = shared_from_this()](const ErrorOfAsio& error, std::size_t) {
                             if (!error) self->reply();
                         });
    }
    void reply() {
        const http::request<http::empty_body>& request = parser.get();
        response.version(request.version());
        response.keep_alive(false);
        response.set(http::field::server, "detente");
        const std::string target(request.target());
        const auto found = request.method() == http::verb::get
                               ? answer_of(target.substr(0, target.find('?')))
                               : std::nullopt;
        if (request.method() != http::verb::get) {
            response.result(http::status::method_not_allowed);
            response.body() = "only GET\n";
        } else if (!found) {
            response.result(http::status::not_found);
            response.body() = "there are /status and /metrics\n";
        } else {
            response.set(http::field::content_type, found->type);
            response.body() = found->body;
        }
        response.prepare_payload();
        http::async_write(
            stream, response, [self = shared_from_this()](const ErrorOfAsio&, std::size_t) {
                ErrorOfAsio ignored;
                self->stream.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
            });
    }
    beast::tcp_stream stream;
    Answer answer_of;
    beast::flat_buffer buffer;
    http::request_parser<http::empty_body> parser;
    http::response<http::string_body> response;
};

HttpServer::HttpServer(asio::io_context& loop, Answer answer)
    : loop_(loop), answer_(std::move(answer)), acceptor_(loop) {}

HttpServer::~HttpServer() { close(); }

Result<void> HttpServer::listen() {
    ErrorOfAsio error;
    const asio::ip::tcp::endpoint loopback(asio::ip::address_v4::loopback(), 0);
    const auto refuse = [&] {
        return fail(ErrorCode::io, "no port of 127.0.0.1 for /status: " + error.message());
    };
    if (acceptor_.open(loopback.protocol(), error); error) return refuse();
    if (acceptor_.bind(loopback, error); error) return refuse();
    if (acceptor_.listen(asio::socket_base::max_listen_connections, error); error) return refuse();
    accept();
    return {};
}

std::string HttpServer::address() const {
    ErrorOfAsio ignored;
    return fmt::format("127.0.0.1:{}", acceptor_.local_endpoint(ignored).port());
}

void HttpServer::accept() {
    acceptor_.async_accept([this](const ErrorOfAsio& error, asio::ip::tcp::socket socket) {
        if (!acceptor_.is_open()) return;
        if (!error) std::make_shared<Session>(std::move(socket), answer_)->read();
        accept();
    });
}

void HttpServer::close() {
    ErrorOfAsio ignored;
    acceptor_.close(ignored);
}

}  // namespace detente
