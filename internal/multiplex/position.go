package multiplex

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// The id of an event holds the positions of all streams: "prices:17,chat:abc". A client that
// comes back with it, for these streams or others, continues each where it was.

const (
	// MaxID is the length of the longest id with the positions of all streams, in bytes.
	MaxID = 1 << 10

	// maxWhole is the length of the longest id of a shared stream that stands whole in it, so that
	// the origin can be asked for what comes after it. Of a longer one, or where there is no room, its digest
	// does, which the topic's log resolves.
	maxWhole = 128

	// digestBytes is how much of its SHA-256 stands for an id. Whoever sends the events
	// could make two ids meet, and would confuse nobody but its own clients.
	digestBytes = 8

	// digestSign is in front of a digest.
	digestSign = '~'
)

// digestLength is that of the Mark of a digest.
var digestLength = 1 + base64.RawURLEncoding.EncodedLen(digestBytes)

// A Mark is the position of one stream as it stands in an id: an id of the stream, its
// reserved bytes percent-encoded, or the digest of one. It is empty if there is none.
type Mark string

// whole returns the Mark that is the id itself.
func whole(id string) Mark {
	if strings.IndexFunc(id, func(r rune) bool { return r >= 0x80 || !isPlain(byte(r)) }) < 0 {
		return Mark(id)
	}
	var b strings.Builder
	for _, c := range []byte(id) {
		if isPlain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return Mark(b.String())
}

// isPlain reports whether a byte of an id stands for itself: it needs to be nothing that a
// proxy may alter, nor what parts ids, positions and digests.
func isPlain(c byte) bool { return isAlnum(c) || strings.IndexByte("-._/+=", c) >= 0 }

// digest returns the Mark that is the digest of an id.
func digest(id string) Mark {
	sum := sha256.Sum256([]byte(id))
	return Mark(string(digestSign) + base64.RawURLEncoding.EncodeToString(sum[:digestBytes]))
}

// IsDigest reports whether only a topic's log can tell the id.
func (m Mark) IsDigest() bool { return m != "" && m[0] == digestSign }

// StandsFor reports whether m is the digest of an id.
func (m Mark) StandsFor(id string) bool {
	// No shorter id was ever digested: it would not have become shorter by that.
	return len(id) >= digestLength && m == digest(id)
}

// ID returns the id, if m is one.
func (m Mark) ID() (string, error) {
	if m.IsDigest() {
		return "", errors.New("reading a position: it is a digest")
	}
	var b strings.Builder
	for i := 0; i < len(m); i++ {
		switch c := m[i]; {
		case isPlain(c):
			b.WriteByte(c)
		case c == '%' && i+2 < len(m):
			high, low := unhex(m[i+1]), unhex(m[i+2])
			if high < 0 || low < 0 {
				return "", errors.New("reading a position: it has a percent sign without two hex digits behind it")
			}
			b.WriteByte(byte(high<<4 | low))
			i += 2
		default:
			return "", fmt.Errorf("reading a position: it has %q, which must be percent-encoded", c)
		}
	}
	return b.String(), nil
}

func unhex(c byte) int {
	return strings.IndexByte("0123456789ABCDEF", c)
}

// ErrIDTooLong is the error of an id that is longer than MaxID.
var ErrIDTooLong = fmt.Errorf("reading the last event id: it has more than %d bytes, which no id of this connection has", MaxID)

// ParseID returns the positions in an id, by alias.
func ParseID(id string) (map[string]Mark, error) {
	if len(id) > MaxID {
		return nil, ErrIDTooLong
	}
	positions := make(map[string]Mark)
	if id == "" {
		return positions, nil
	}
	for position := range strings.SplitSeq(id, ",") {
		alias, text, ok := strings.Cut(position, ":")
		mark := Mark(text)
		if !ok || mark == "" || checkAlias(alias) != nil {
			return nil, fmt.Errorf("reading the last event id: %q is no position of a stream", position)
		}
		if _, known := positions[alias]; known {
			return nil, fmt.Errorf("reading the last event id: it has two positions of stream %s", alias)
		}
		if mark.IsDigest() {
			if raw, err := base64.RawURLEncoding.Strict().DecodeString(text[1:]); err != nil || len(raw) != digestBytes {
				return nil, fmt.Errorf("reading the last event id: %q is no digest", position)
			}
		} else if whole, err := mark.ID(); err != nil || strings.ContainsAny(whole, "\r\n\x00") {
			return nil, fmt.Errorf("reading the last event id: %q is no position of a stream", position)
		}
		positions[alias] = mark
	}
	return positions, nil
}

// positions are those of all streams of a connection.
type positions struct {
	places []place
	length int // of the id, with a comma behind each position

	// tight is set once the ids of shared streams, whole, leave no room.
	tight bool
}

// A place is the position of one stream.
type place struct {
	alias  string
	mark   Mark
	id     string // that mark stands for, if that is known
	shared bool   // a log can resolve its digest
}

func newPositions(streams []Stream, brought map[string]Mark) *positions {
	p := &positions{places: make([]place, len(streams))}
	for i, s := range streams {
		p.places[i].alias = s.Alias
		p.put(i, brought[s.Alias])
	}
	return p
}

func (p *positions) put(i int, mark Mark) {
	at := &p.places[i]
	p.length += at.size(mark) - at.size(at.mark)
	at.mark = mark
}

// size is what a mark takes in an id.
func (at *place) size(mark Mark) int {
	if mark == "" {
		return 0
	}
	return len(at.alias) + len(":") + len(mark) + len(",")
}

// set makes id the position of stream i. It reports false if there is no room for it: only
// the ids of streams that are not shared can take so much.
func (p *positions) set(i int, id string, shared bool) bool {
	at := &p.places[i]
	at.id, at.shared = id, shared
	p.put(i, p.markFor(at))
	if p.fits() || p.tight {
		return p.fits()
	}
	p.tight = true
	for j := range p.places {
		if at := &p.places[j]; at.shared && at.id != "" {
			p.put(j, p.markFor(at))
		}
	}
	return p.fits()
}

func (p *positions) markFor(at *place) Mark {
	mark := whole(at.id)
	if !at.shared || len(at.id) < digestLength {
		return mark
	}
	if len(at.id) > maxWhole || p.tight && len(mark) > digestLength {
		return digest(at.id)
	}
	return mark
}

func (p *positions) fits() bool { return p.length <= MaxID+1 }

// append appends the id to b.
func (p *positions) append(b []byte) []byte {
	first := true
	for i := range p.places {
		at := &p.places[i]
		if at.mark == "" {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(append(b, at.alias...), ':'), at.mark...)
	}
	return b
}
