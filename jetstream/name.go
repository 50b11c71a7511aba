package jetstream

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"
)

// A secret is what all nodes of a fleet share. It keeps who can read the subjects of
// JetStream, but not their messages, from guessing what is streamed: a topic's key holds
// query parameters and the values of headers.
type secret []byte

// nameBytes is how much of the MAC names a topic. 128 bits have no collisions by accident,
// and without the secret none on purpose.
const nameBytes = 16

var nameEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// topicName returns the name of a topic, which is equal on all nodes that have the secret,
// a handler of that definition and a request of that key. It can stand in a subject and be
// a key of a bucket.
func (s secret) topicName(definition, key string) string {
	return s.name("topic", definition, key)
}

// fingerprint tells nodes with different secrets apart, and says nothing about the secret.
func (s secret) fingerprint() string { return s.name("secret") }

// name returns a MAC of parts. Each is preceded by its length, so that no two lists of
// parts have one name but by collision.
func (s secret) name(parts ...string) string {
	mac := hmac.New(sha256.New, s)
	for _, part := range parts {
		mac.Write(binary.AppendUvarint(nil, uint64(len(part))))
		mac.Write([]byte(part))
	}
	return nameEncoding.EncodeToString(mac.Sum(nil)[:nameBytes])
}

// subject returns the subject of a topic's messages.
func subject(stream, topic string) string { return stream + "." + topic }

// subjects returns the pattern of the subjects of a stream.
func subjects(stream string) string { return stream + ".*" }

// leases returns the name of the bucket that has the leases of a stream's topics.
func leases(stream string) string { return stream + "_LEASES" }

// isStreamName reports whether a stream and its bucket can have a name: the characters that
// buckets allow, as streams and subjects allow more.
func isStreamName(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	return name != "" && len(name) <= 200 && strings.Trim(name, allowed) == ""
}
