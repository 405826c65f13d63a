//! Single elements of GF(2^8) with the polynomial 0x11d: what tables and plans are made of, not what data goes through.

/// What is left of the polynomial when an element is doubled over its highest bit.
pub(super) const REDUCTION: u8 = 0x1d;

pub(super) const fn double(element: u8) -> u8 {
    (element << 1) ^ if element >> 7 == 1 { REDUCTION } else { 0 }
}

pub(super) const fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    product
}

/// g to the power of `exponent`.
pub(super) fn generator_power(exponent: usize) -> u8 {
    (0..exponent % 255).fold(1, |power, _| double(power))
}

/// The element that gives 1 with `element`; 0 has none and gives 0.
pub(super) fn inverse(element: u8) -> u8 {
    // The multiplicative group has 255 elements: a^254 = a^-1.
    (0..254).fold(1, |power, _| multiply(power, element))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_the_generator_are_the_known_ones() {
        // From the table of logarithms of Linux' lib/raid6 (raid6_gfexp).
        let known = [
            1, 2, 4, 8, 16, 32, 64, 128, 0x1d, 0x3a, 0x74, 0xe8, 0xcd, 0x87, 0x13, 0x26,
        ];
        for (exponent, power) in known.into_iter().enumerate() {
            assert_eq!(generator_power(exponent), power);
        }
        assert_eq!(generator_power(254), 0x8e);
        assert_eq!(generator_power(255), 1);
    }

    #[test]
    fn the_generator_reaches_every_element_but_zero() {
        let mut reached: Vec<u8> = (0..255).map(generator_power).collect();
        reached.sort_unstable();
        assert_eq!(reached, (1..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn an_element_times_its_inverse_is_one() {
        for element in 1..=255 {
            assert_eq!(multiply(element, inverse(element)), 1);
        }
    }
}
