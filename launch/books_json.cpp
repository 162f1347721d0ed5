#include "launch/books_json.h"

#include <boost/json.hpp>

namespace detente {

boost::json::object json_of(const Books& books) {
    return {{"computed", books.computed}, {"applied", books.applied},
            {"rejected", books.rejected}, {"cancelled", books.cancelled},
            {"lost", books.lost},         {"in_flight", books.in_flight}};
}

}  // namespace detente
