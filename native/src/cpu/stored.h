// 16-bit floats as they stand in memory. Included inside an unnamed namespace.

struct Float16 {
    uint16_t bits;
};
struct BFloat16 {
    uint16_t bits;
};
