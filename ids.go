package ssefanout

import (
	"crypto/rand"
	"strconv"
	"strings"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
)

// assignedPrefix begins every id that is ours. Such an id never goes to the
// origin, whichever topic or process it is from. With an epoch and a sequence
// number it stays far below the 128 bytes beyond which a browser asks for
// permission first (Fetch standard, "CORS-safelisted request-header").
const assignedPrefix = "sse-fanout:"

// newEpoch tells the ids of one topic from those of every other, and from those
// of the same topic in an earlier life.
func newEpoch() string { return rand.Text()[:12] }

// assign returns the id for the entry at cursor c of an origin that sends none.
func (t *topic) assign(c hub.Cursor) string {
	return assignedPrefix + t.epoch + ":" + strconv.FormatUint(uint64(c), 36)
}

// assigned reports whether an id is ours.
func (t *topic) assigned(id string) bool {
	return t.epoch != "" && strings.HasPrefix(id, assignedPrefix)
}
