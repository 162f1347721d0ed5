#include "launch/http_server.h"

#include <fmt/core.h>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <memory>
#include <utility>

#include "launch/control_request.h"

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
    Session(asio::ip::tcp::socket socket, const HttpServer& of)
        : stream(std::move(socket)), answer_of(of.answer_), post(of.post_) {
        parser.header_limit(kMostRequestBytes);
        parser.body_limit(kMostRequestBytes);
    }
    void read() {
        stream.expires_after(kRequestDeadline);
        http::async_read(stream, buffer, parser,
                         [self = shared_from_this()](const ErrorOfAsio& error, std::size_t) {
                             if (!error) self->take();
                         });
    }
    void take() {
        const http::request<http::string_body>& request = parser.get();
        const std::string target(request.target());
        const std::string path = target.substr(0, target.find('?'));
        if (request.method() == http::verb::post) {
            const HttpPost posted{path, std::string(request[kTokenHeader]), request.body()};
            stream.expires_never();  // whoever answers has a deadline of its own
            return post(posted,
                        [self = shared_from_this()](const HttpReply& with) { self->reply(with); });
        }
        if (request.method() != http::verb::get) {
            return reply({405, {"text/plain", "GET, or POST /control\n"}});
        }
        if (!request.body().empty()) {
            return reply({400, {"text/plain", "a GET has no body\n"}});
        }
        const auto found = answer_of(path);
        if (!found) return reply({404, {"text/plain", "there are /status and /metrics\n"}});
        reply({200, *found});
    }
    void reply(const HttpReply& with) {
        response.version(parser.get().version());
        response.keep_alive(false);
        response.set(http::field::server, "detente");
        response.set(http::field::content_type, with.answer.type);
        response.result(with.status);
        response.body() = with.answer.body;
        response.prepare_payload();
        stream.expires_after(kRequestDeadline);
        http::async_write(
            stream, response, [self = shared_from_this()](const ErrorOfAsio&, std::size_t) {
                ErrorOfAsio ignored;
                self->stream.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
            });
    }
    beast::tcp_stream stream;
    Answer answer_of;
    Post post;
    beast::flat_buffer buffer;
    http::request_parser<http::string_body> parser;
    http::response<http::string_body> response;
};

HttpServer::HttpServer(asio::io_context& loop, Answer answer, Post post)
    : loop_(loop), answer_(std::move(answer)), post_(std::move(post)), acceptor_(loop) {}

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
        if (!error) std::make_shared<Session>(std::move(socket), *this)->read();
        accept();
    });
}

void HttpServer::close() {
    ErrorOfAsio ignored;
    acceptor_.close(ignored);
}

}  // namespace detente
