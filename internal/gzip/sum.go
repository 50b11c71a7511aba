package gzip

import "hash/crc32"

// A Sum is what the trailer of a member says of its bytes: their CRC-32, and how many they
// are. Its zero value is that of no bytes.
//
// A CRC is linear: the sum of two texts in a row follows from their sums, without the texts.
// So a rendition hashes what it compresses once, and a reader remembers the rendition's sum
// where it got in step. What it has been sent since is the difference.
type Sum struct {
	crc uint32
	n   uint64
}

// Add returns the sum of the bytes of s and of p after them.
func (s Sum) Add(p []byte) Sum {
	return Sum{crc32.Update(s.crc, crc32.IEEETable, p), s.n + uint64(len(p))}
}

// Then returns the sum of the bytes of s and of those of t after them.
func (s Sum) Then(t Sum) Sum {
	return Sum{shift(s.crc, t.n) ^ t.crc, s.n + t.n}
}

// since returns the sum of the bytes that have come to those of t to make up s.
func (s Sum) since(t Sum) Sum {
	n := s.n - t.n
	return Sum{shift(t.crc, n) ^ s.crc, n}
}

// shift returns what remains of a CRC behind n more bytes: crc·x^8n modulo the polynomial
// of CRC-32.
func shift(crc uint32, n uint64) uint32 {
	const bitsInByte = 3 // as a power of two
	for k := bitsInByte; n > 0; k++ {
		if n&1 != 0 {
			crc = multiply(powers[k%len(powers)], crc)
		}
		n >>= 1
	}
	return crc
}

// powers has x^(2^k) as its kth element. The next would be the first again, as x^(2^32) is x.
var powers = func() (p [32]uint32) {
	p[0] = 1 << 30
	for k := range len(p) - 1 {
		p[k+1] = multiply(p[k], p[k])
	}
	return p
}()

// multiply returns the product of two polynomials modulo that of CRC-32. Their bits are
// reversed, as in the checksum: the highest is the constant term.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a>>31 != 0 {
			product ^= b
		}
		// b·x
		if b&1 != 0 {
			b = b>>1 ^ crc32.IEEE
		} else {
			b >>= 1
		}
	}
	return product
}
