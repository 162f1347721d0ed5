#include <catch2/catch.hpp>
#include <vector>

#include "common/conflict/gramian.h"
#include "common/conflict/row_kernels.h"
#include "common/random.h"
#include "tests/conflict/every_target.h"

namespace detente {

TEST_CASE("a row of products has the bits of the Gramian's row on every instruction set") {
    for (const std::int64_t target : test::targets()) {
        const test::UseTarget use(target);
        for (const std::size_t others : {1U, 2U, 3U, 4U, 5U, 9U}) {
            for (const std::size_t elements : {1U, 15U, 16U, 17U, 1000U, 1024U, 1025U, 3100U}) {
                INFO(others << " others of " << elements << " elements");
                // One float further on than allocated: at addresses that are not of a vector.
                std::vector<std::vector<float>> floats(others + 1);
                std::vector<const float*> rows;
                for (std::size_t i = 0; i <= others; ++i) {
                    Random random(random_key(5, Purpose::test, {i, elements}));
                    floats[i].resize(elements + 1);
                    for (float& x : floats[i]) x = static_cast<float>(random.normal());
                    rows.push_back(floats[i].data() + 1);
                }
                Gramian whole(others + 1);
                whole.add_block(rows, elements);
                std::vector<double> sums(others + 1, 0.0);
                kernels::add_row_products(rows[0], rows, elements, sums.data());
                for (std::size_t j = 0; j <= others; ++j) REQUIRE(sums[j] == whole.at(0, j));
            }
        }
    }
}

TEST_CASE("a row of products adds to what is there and takes no others for nothing") {
    const std::vector<float> row{1, 2, 3};
    double sum = 5;
    const float* other = row.data();
    kernels::add_row_products(row.data(), {&other, 1}, 3, &sum);
    CHECK(sum == 19);
    kernels::add_row_products(row.data(), {}, 3, nullptr);
    CHECK(sum == 19);
}

}  // namespace detente
