//! CRC-32 as in IEEE 802.3, by which a damaged frame is known.

/// The polynomial, lowest power first.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// What a byte becomes once it and 0 to 3 bytes behind it are in.
static TABLES: [[u32; 256]; 4] = tables();

const fn tables() -> [[u32; 256]; 4] {
    let mut tables = [[0; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut further = 1;
    while further < 4 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[further - 1][byte];
            tables[further][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        further += 1;
    }
    tables
}

/// The checksum of these bytes.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let at = |table: usize, crc: u32| TABLES[table][(crc & 0xff) as usize];
    let mut fours = bytes.chunks_exact(4);
    let mut crc = !0_u32;
    for four in &mut fours {
        crc ^= u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        crc = at(3, crc) ^ at(2, crc >> 8) ^ at(1, crc >> 16) ^ at(0, crc >> 24);
    }
    for &byte in fours.remainder() {
        crc = crc >> 8 ^ at(0, crc ^ u32::from(byte));
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // The check value of CRC-32/ISO-HDLC, and what gzip(1) writes for these.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"a"), 0xe8b7_be43);
        assert_eq!(
            crc32(b"The quick brown fox jumps over the lazy dog"),
            0x414f_a339
        );
    }

    #[test]
    fn every_length_agrees_with_one_byte_at_a_time() {
        let bytes: Vec<u8> = (0..64_u8).map(|byte| byte.wrapping_mul(37)).collect();
        for length in 0..bytes.len() {
            let slow = bytes[..length].iter().fold(!0_u32, |crc, &byte| {
                crc >> 8 ^ TABLES[0][((crc ^ u32::from(byte)) & 0xff) as usize]
            });
            assert_eq!(crc32(&bytes[..length]), !slow, "{length}");
        }
    }
}
