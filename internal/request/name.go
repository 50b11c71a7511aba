package request

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
)

// nameKey makes public names of topics unlinkable to what their keys hold:
// without it, a value of vary could be guessed by hashing candidates.
var nameKey = func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key)
	return key
}()

// maxNamedHost and maxNamedPath are how much of them a topic's name has: it stands in each
// line of the log that is about the topic.
const (
	maxNamedHost = 100
	maxNamedPath = 200
)

// PublicName names a topic in logs and to administrators. It never holds a
// query or a value of vary.
func (req *Shared) PublicName(key string) string {
	mac := hmac.New(sha256.New, nameKey)
	mac.Write([]byte(key))
	asked := &req.url
	if req.orig != nil {
		asked = req.orig
	}
	return clip(req.host, maxNamedHost) + clip(asked.EscapedPath(), maxNamedPath) + " " + hex.EncodeToString(mac.Sum(nil)[:6])
}

// clip returns text, or its beginning and a sign that there is more.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most] + "[...]"
}
