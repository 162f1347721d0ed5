#include "tests/common/codec_samples.h"

#include <algorithm>
#include <boost/pfr.hpp>
#include <cstring>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

namespace detente {
namespace {

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsPair : std::false_type {};
template <class A, class B>
struct IsPair<std::pair<A, B>> : std::true_type {};

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

template <class Enum>
constexpr Enum last_of() {
    if constexpr (std::is_same_v<Enum, Role>) return Role::evaluator;
    if constexpr (std::is_same_v<Enum, RequestClass>) return RequestClass::control;
    if constexpr (std::is_same_v<Enum, Encoding>) return Encoding::dense;  // rows are refused
    if constexpr (std::is_same_v<Enum, Verdict>) return Verdict::lost;
    if constexpr (std::is_same_v<Enum, Advice>) return Advice::compensate;
    if constexpr (std::is_same_v<Enum, CancelReason>) return CancelReason::failed;
    if constexpr (std::is_same_v<Enum, WaitFor>) return WaitFor::push_again;
    if constexpr (std::is_same_v<Enum, ErrorCode>) return ErrorCode::internal;
    if constexpr (std::is_same_v<Enum, Admission>) return Admission::step;
}

class Drawer {
  public:
    Drawer(Sample sample, Random& random) : sample_(sample), random_(random) {}

    template <class T>
    void draw(T& to) {
        if constexpr (std::is_same_v<T, bool>) {
            to = sample_ == Sample::largest || (mixed() && random_.below(2) == 1);
        } else if constexpr (std::is_enum_v<T>) {
            to = static_cast<T>(below(static_cast<std::uint64_t>(last_of<T>()) + 1));
        } else if constexpr (std::is_floating_point_v<T>) {
            to = sample_ == Sample::zeros     ? T{0}
                 : sample_ == Sample::largest ? std::numeric_limits<T>::max()
                                              : static_cast<T>(random_.normal());
        } else if constexpr (std::is_integral_v<T>) {
            to = integer<T>();
        } else if constexpr (std::is_same_v<T, Nanos>) {
            to = Nanos{integer<std::int64_t>()};
        } else if constexpr (std::is_same_v<T, std::string>) {
            to.resize(below(40));
            for (char& c : to) c = static_cast<char>(random_.below(256));
        } else if constexpr (std::is_same_v<T, Payload>) {
            to = payload();
        } else if constexpr (IsOptional<T>::value) {
            to.reset();
            if (below(2) == 1) draw(to.emplace());
        } else if constexpr (IsVector<T>::value) {
            to.resize(below(12));
            for (auto& entry : to) draw(entry);
        } else if constexpr (IsPair<T>::value) {
            draw(to.first);
            draw(to.second);
        } else {
            boost::pfr::for_each_field(to, [this](auto& field) { draw(field); });
        }
    }

  private:
    bool mixed() const { return sample_ == Sample::mixed; }
    std::uint64_t below(std::uint64_t bound) {
        if (sample_ == Sample::zeros) return 0;
        return sample_ == Sample::largest ? bound - 1 : random_.below(bound);
    }
    template <class T>
    T integer() {
        if (sample_ == Sample::zeros) return 0;
        if (sample_ == Sample::largest || random_.below(8) == 0) {
            return std::numeric_limits<T>::max();
        }
        // Small numbers as often as large ones; never negative.
        const std::uint64_t bits = random_.bits() >> random_.below(64);
        return static_cast<T>(bits & static_cast<std::uint64_t>(std::numeric_limits<T>::max()));
    }
    // Alone, or the next bytes of the block before: empty, small, or large.
    Payload payload() {
        if (sample_ == Sample::zeros) return {};
        const std::size_t sizes[] = {0, 4, 12, 100, 4096, 70'000};
        const std::size_t bytes = sizes[below(6)];
        if (chain_.size() >= chain_used_ + bytes && random_.below(4) != 0) {
            chain_used_ += bytes;
            return {chain_.owner, chain_.bytes.subspan(chain_used_ - bytes, bytes)};
        }
        AlignedBuffer buffer(bytes * 4);
        for (std::size_t i = 0; i < buffer.size(); ++i) {
            buffer.data()[i] = static_cast<std::byte>(scatter(i + bytes) & 0xFFU);
        }
        chain_ = payload_of(std::make_shared<const AlignedBuffer>(std::move(buffer)));
        chain_used_ = bytes;
        return {chain_.owner, chain_.bytes.first(bytes)};
    }

    Sample sample_;
    Random& random_;
    Payload chain_;
    std::size_t chain_used_ = 0;
};

// What random drawing does not know: ids are distinct, parts exist, ranges end.
void make_valid(BatchRange& range) { range.count = std::min(range.count, ~range.first); }

template <class T>
void make_valid(T& message) {
    if constexpr (requires { message.parts; }) {
        message.parts = std::max(message.parts, 1U);
        message.part.value = std::min(message.part.value, message.parts - 1);
    }
    if constexpr (requires { make_valid(message.batch); }) make_valid(message.batch);
    const auto number = [](auto& list, auto id_of) {
        // Descending, so that the sorting way of the duplicate check is tried too.
        std::uint64_t id = std::numeric_limits<std::uint64_t>::max();
        for (auto& entry : list) id_of(entry).value = id--;
    };
    if constexpr (requires { message.blocks; }) {
        if constexpr (requires { message.blocks[0].block; }) {
            number(message.blocks, [](auto& block) -> BlockId& { return block.block; });
        } else {
            number(message.blocks, [](auto& id) -> BlockId& { return id; });
        }
    }
    if constexpr (requires { message.verdicts; }) {
        number(message.verdicts, [](auto& verdict) -> BlockId& { return verdict.block; });
    }
    if constexpr (requires { message.sums; }) {
        number(message.sums, [](auto& sum) -> BlockId& { return sum.block; });
    }
    if constexpr (requires { message.commits; }) {
        for (auto& commit : message.commits) {
            if (commit.pushes.empty()) commit.pushes.emplace_back();
            if (commit.denominator == 0) commit.denominator = 1;
        }
    }
    if constexpr (requires { message.finished; }) {
        for (BatchRange& range : message.finished) make_valid(range);
    }
    if constexpr (requires { message.granted; }) {
        for (BatchRange& range : message.granted) make_valid(range);
    }
}

template <std::size_t Kind = 0>
Body empty_body(std::size_t kind) {
    if constexpr (Kind + 1 < kKinds) {
        if (kind != Kind) return empty_body<Kind + 1>(kind);
    }
    return Body{std::in_place_index<Kind>};
}

template <class T>
std::string differs(const T& a, const T& b) {
    if constexpr (std::is_same_v<T, Payload>) {
        return std::ranges::equal(a.bytes, b.bytes) ? "" : " (bytes)";
    } else if constexpr (IsVector<T>::value) {
        if (a.size() != b.size()) return " (size)";
        for (std::size_t i = 0; i < a.size(); ++i) {
            const std::string inner = differs(a[i], b[i]);
            if (!inner.empty()) return "[" + std::to_string(i) + "]" + inner;
        }
        return "";
    } else if constexpr (IsPair<T>::value || std::is_arithmetic_v<T> || std::is_enum_v<T> ||
                         std::is_same_v<T, std::string> || std::is_same_v<T, Nanos> ||
                         IsOptional<T>::value) {
        return a == b ? "" : " (value)";
    } else {
        std::string found;
        boost::pfr::for_each_field(a, [&](const auto& field, std::size_t index) {
            using Field = std::remove_cvref_t<decltype(field)>;
            std::size_t other = 0;
            boost::pfr::for_each_field(b, [&](const auto& peer) {
                if constexpr (std::is_same_v<std::remove_cvref_t<decltype(peer)>, Field>) {
                    if (other == index && found.empty()) {
                        const std::string inner = differs(field, peer);
                        if (!inner.empty()) found = "." + std::to_string(index) + inner;
                    }
                }
                ++other;
            });
        });
        return found;
    }
}

}  // namespace

Message sample_message(std::size_t kind, Sample sample, Random& random) {
    Drawer drawer(sample, random);
    Message message;
    drawer.draw(message.envelope);
    message.body = empty_body(kind);
    std::visit(
        [&drawer](auto& body) {
            drawer.draw(body);
            make_valid(body);
        },
        message.body);
    return message;
}

std::string difference(const Message& a, const Message& b) {
    if (a.body.index() != b.body.index()) return "kind";
    const std::string envelope = differs(a.envelope, b.envelope);
    if (!envelope.empty()) return "envelope" + envelope;
    return std::visit(
        [&b](const auto& body) {
            const std::string inner =
                differs(body, std::get<std::remove_cvref_t<decltype(body)>>(b.body));
            return inner.empty() ? inner : std::string(kind_of(b.body)) + inner;
        },
        a.body);
}

void mutate(std::vector<std::byte>& bytes, Random& random) {
    constexpr std::uint32_t kTempting[] = {0,          1,          2,          4,     16,
                                           0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 65535, 0xFFFFFFF0};
    for (std::uint64_t times = 1 + random.below(4); times > 0 && !bytes.empty(); --times) {
        const std::size_t at = random.below(bytes.size());
        const std::size_t run = std::min<std::size_t>(1 + random.below(32), bytes.size() - at);
        const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
        const auto end = begin + static_cast<std::ptrdiff_t>(run);
        switch (random.below(7)) {
            case 0:
                bytes[at] ^= static_cast<std::byte>(1U << random.below(8));
                break;
            case 1:
                bytes[at] = static_cast<std::byte>(random.below(256));
                break;
            case 2: {
                const std::uint32_t word = kTempting[random.below(std::size(kTempting))];
                std::memcpy(&bytes[at], &word, std::min<std::size_t>(4, bytes.size() - at));
                break;
            }
            case 3: {
                // The same field of another entry, or an offset to another table.
                const std::size_t from = random.below(bytes.size());
                const std::size_t length =
                    std::min<std::size_t>(random.below(2) == 0 ? 4 : 8, bytes.size() - from);
                std::memmove(&bytes[at], &bytes[from], std::min(length, bytes.size() - at));
                break;
            }
            case 4:
                bytes.erase(begin, end);
                break;
            case 5: {
                const std::vector<std::byte> repeated(begin, end);
                bytes.insert(begin, repeated.begin(), repeated.end());
                break;
            }
            default:
                bytes.resize(at);
        }
    }
}

}  // namespace detente
