//! Hexadecimal text of digests and random names.

/// Returns `bytes` as lower-case hexadecimal, two digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len().saturating_mul(2)];
    write_hex(&mut text, bytes);
    // The digits are ASCII.
    String::from_utf8(text).unwrap_or_default()
}

/// Writes `bytes` as lower-case hexadecimal to `digits`, which is twice as long.
pub(crate) fn write_hex(digits: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        if let [high, low] = pair {
            (*high, *low) = (digit(byte >> 4), digit(byte & 0xf));
        }
    }
}

/// The digit of a number below 16.
fn digit(nibble: u8) -> u8 {
    let from = if nibble < 10 { b'0' } else { b'a'.wrapping_sub(10) };
    nibble.wrapping_add(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_two_digits() {
        for byte in 0..=u8::MAX {
            assert_eq!(hex(&[byte]), format!("{byte:02x}"));
        }
        assert_eq!(hex(&[]), "");
        assert_eq!(hex(&[0, 0xff, 0x10]), "00ff10");
    }
}
