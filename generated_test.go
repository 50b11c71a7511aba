package ssefanout

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// tokenChars are those of a token (RFC 9110, section 5.6.2).
const tokenChars = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// text returns a random text of some characters.
func text(random *rand.Rand, of string, least, most int) string {
	b := make([]byte, least+random.IntN(most-least+1))
	for i := range b {
		b[i] = of[random.IntN(len(of))]
	}
	return string(b)
}

// Whatever parameters the type of an event stream has, it is one, and the client is told
// them to the byte. Whatever a Content-Encoding names that is no coding, the stream is what
// it is.
func TestAnyTypeParameterAndAnyCodingName(t *testing.T) {
	for seed := range seeds(300) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 10)) //nolint:gosec // to be repeated
			contentType := [...]string{"text/event-stream", "Text/Event-Stream", "TEXT/EVENT-STREAM"}[random.IntN(3)]
			for range random.IntN(4) {
				value := text(random, tokenChars, 0, 12)
				if random.IntN(3) == 0 {
					value = `"` + text(random, tokenChars+` ()<>@,;:/[]?={}`, 0, 12) + `"`
				}
				contentType += [...]string{";", "; ", " ;", " ; "}[random.IntN(4)] + text(random, tokenChars, 1, 12) + "=" + value
			}
			name := text(random, tokenChars, 1, 12)
			s := newSetup(t, Options{})
			c := s.get("/events")
			s.origin.next().answer(http.StatusOK, "Content-Type", contentType, "Content-Encoding", name).events(1, 2)
			c.expect(primer("") + numbered(1, 2))
			if got := c.header.Get("Content-Type"); got != contentType {
				t.Errorf("seed %d: Content-Type is %q, want %q", seed, got, contentType)
			}
			if got := c.header["Content-Encoding"]; got != nil {
				t.Errorf("seed %d: Content-Encoding is %q, want none", seed, got)
			}
		})
	}
}

// Whatever an id is, of whatever length, a client that brings it back goes on behind its
// event, as long as the history has that.
func TestAnyID(t *testing.T) {
	var all strings.Builder
	for b := 1; b < 256; b++ {
		if b != '\r' && b != '\n' {
			all.WriteByte(byte(b))
		}
	}
	for seed := range seeds(100) {
		bothWriters(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 14)) //nolint:gosec // to be repeated
			most := [...]int{8, 200, relay.MaxLastEventID - 1, 2 * relay.MaxLastEventID}[random.IntN(4)]
			of := [...]string{tokenChars, tokenChars + ` {}":,[]`, tokenChars + "üß✓", " \t" + tokenChars, all.String()}[random.IntN(5)]
			id := text(random, of, 1, most)
			s := newSetup(t, Options{Catchup: noCatchup})
			first := s.get("/events")
			up := s.origin.next().accept().events(90001, 90001).send(fmt.Sprintf("id: %s\ndata: it\n\n", id)).events(90003, 90003)
			// A client brings back what it was told, without blanks around it.
			before, _, _ := strings.Cut(first.read(), "\ndata: it\n")
			_, brought, _ := strings.Cut(before, numbered(90001, 90001)+"id: ")
			if brought = strings.Trim(brought, " \t"); brought == "" {
				return // it is as none
			}
			c := s.get("/events", "Last-Event-ID", brought)
			up.events(90004, 90004)
			if got := c.read(); !strings.HasSuffix(got, numbered(90003, 90004)) || strings.Contains(got, "data: it") || strings.Contains(got, gapComment) {
				t.Errorf("seed %d: after the id %q, the client got %.200q, want events 90003 and 90004", seed, id, got)
			}
		})
	}
}
