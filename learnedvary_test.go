package ssefanout

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
)

// Each client gets the stream that its own headers ask for, and shares it with
// those who ask for the same.
func TestVaryingAnswersAreSharedPerValue(t *testing.T) {
	for _, f := range forms {
		t.Run(f.String(), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := f.setup(t, Options{})
				waiting := map[string][]*client{}
				join := func(language string) {
					var header []string
					if language != "" {
						header = []string{"Accept-Language", language}
					}
					waiting[language] = append(waiting[language], s.get("/events", header...))
				}
				for _, language := range []string{"fr", "de", "", "fr", "de", ""} {
					join(language)
				}
				s.origin.next().answer(200, "Content-Type", "text/event-stream", "Vary", "Accept-Language")
				answered := map[string]*conn{}
				for range waiting {
					up := s.origin.next()
					up.answer(200, "Content-Type", "text/event-stream", "Vary", "Accept-Language")
					answered[up.request.Header.Get("Accept-Language")] = up
				}
				if len(answered) != len(waiting) {
					t.Fatalf("the origin was asked for %d languages, want %d", len(answered), len(waiting))
				}
				for language := range waiting {
					join(language) // it is known by now
				}
				s.origin.idle()
				for language, up := range answered {
					up.send("data: in " + language + "\n\n")
				}
				for language, clients := range waiting {
					for _, c := range clients {
						c.expect(primer("") + "data: in " + language + "\n\n")
					}
				}

				// What is known is asked again after an hour, and nobody joins
				// another language meanwhile.
				time.Sleep(learnedTime)
				c := s.get("/events", "Accept-Language", "fr")
				s.origin.next().answer(200, "Content-Type", "text/event-stream", "Vary", "Accept-Language")
				s.origin.idle()
				answered["fr"].send("data: again\n\n")
				if got := c.read(); !strings.HasSuffix(got, "data: again\n\n") {
					t.Errorf("the client got %q, want what others of its language get", got)
				}
			})
		})
	}
}

// An origin may vary by more for some languages than for others.
func TestKeyLearnsOneHeaderAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWrappingSetup(t, Options{})
		get := func() *client {
			var header []string
			for i := range request.MaxLearned + 1 {
				header = append(header, "Accept-"+strconv.Itoa(i), "x")
			}
			return s.get("/events", header...)
		}
		c := get()
		var vary []string
		for i := range request.MaxLearned {
			vary = append(vary, "Accept-"+strconv.Itoa(i))
			s.origin.next().answer(200, "Content-Type", "text/event-stream", "Vary", strings.Join(vary, ", "))
			c.expectStatus(0)
		}
		up := s.origin.next()
		for _, name := range vary {
			if up.request.Header.Get(name) != "x" {
				t.Errorf("the origin was asked with %v, want %s in it", up.request.Header, name)
			}
		}
		// One more is too many.
		up.answer(200, "Content-Type", "text/event-stream", "Vary", "Accept-"+strconv.Itoa(request.MaxLearned))
		c.expectAnswer(200, "passed ")
		get().expectAnswer(200, "passed ")
		s.origin.idle()
	})
}
