//! What must hold for any bytes. Each target in `fuzz_targets/` is one call of a function here;
//! `tests/it` calls the same functions with generated input and with the committed seeds.

pub mod reading;
