package check

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

// buffering judges arrival times. What is sent at once cannot be told from what
// was collected on the way, so only what no server does is called buffering.
func (j *judge) buffering() {
	live := j.live()
	fix := bufferingFix(j.hops)
	if len(live) == 0 {
		j.nothingLive(fix)
		return
	}
	s := signsOf(live, j.opened)
	switch why := s.why(); {
	case why != "":
		j.held = true
		text := "Something holds bytes back"
		switch {
		case s.stamped > 0 || s.halves > 1:
			text = fmt.Sprintf("Events are held back: %s came in %s,", count(s.events, "event"), count(s.batches, "batch"))
		default:
			text += ":"
		}
		j.find(Failure, "buffering", text+" "+why+".", fix)
	case s.batches >= 3 && s.events >= 3*s.batches && j.regular(live):
		j.find(Warning, "buffering", fmt.Sprintf("Events come in bursts: %s in %s, about %s apart. Either they are sent so, or a buffer is on the way.",
			count(s.events, "event"), count(s.batches, "batch"), terminal.Duration(live[len(live)-1].from.Sub(live[0].from)/time.Duration(max(1, len(live)-1)))),
			"If the server does not send bursts: "+fix)
	case s.events == 0:
		j.find(OK, "buffering", "Heartbeats arrive one by one.", "")
		j.unseen("whether events are held back: none came after the stream was opened")
	case s.events < 3:
		j.find(Note, "buffering", fmt.Sprintf("%s came after the stream was opened, too few to tell whether events are held back.", upperFirst(count(s.events, "event"))), "")
	default:
		j.find(OK, "buffering", fmt.Sprintf("Nothing holds events back: %s arrived in %s, %s.", count(s.events, "event"), count(s.batches, "batch"), gaps(live)), "")
	}
}

// nothingLive is buffering where nothing came after the stream was opened.
func (j *judge) nothingLive(fix string) {
	opened := j.opened.Sub(j.begun)
	switch {
	case j.over.Sub(j.opened) < time.Second && opened > time.Second && j.events > 1 && (j.ended || j.err != nil):
		j.held = true
		j.find(Failure, "buffering", fmt.Sprintf("All %d events came at once after %s, and then the stream ended: something has collected the whole response.",
			j.events, terminal.Duration(opened)), fix)
	case j.plain != nil: // see compression
	case j.bytes == 0:
		j.find(Warning, "buffering", fmt.Sprintf("Nothing came in %s but the header: either the server had nothing to say, or it is held back.", terminal.Duration(j.over.Sub(j.opened))),
			"Make it send an event while this command listens; a comment at the start of each stream helps to tell. If it still shows nothing: "+fix)
	default:
		j.unseen("whether events are held back: none came after the stream was opened")
	}
}

// signs count what batches have that tells of a buffer.
type signs struct {
	batches, events int // batches that have events, and those
	stamped         int // batches whose events were made apart, by the times that they name
	late            time.Duration
	halves          int // batches that end in the middle of an event, with nothing soon after
	pings           int // batches with heartbeats of several silences
}

// signsOf looks through the batches of a stream that was opened at a time.
func signsOf(live []batch, opened time.Time) signs {
	var s signs
	for i, b := range live {
		if b.events > 0 {
			s.batches++
			s.events += b.events
		}
		if b.events > 1 {
			if spread := b.late - b.early - b.to.Sub(b.from); b.early > 0 && spread >= time.Second {
				s.stamped++
				s.late = max(s.late, spread)
			}
		}
		before := opened
		if i > 0 {
			before = live[i-1].to
		}
		quiet := b.from.Sub(before) >= time.Second
		if b.heartbeats > 1 && quiet {
			s.pings++
		}
		if b.half && b.events > 0 && i+1 < len(live) && live[i+1].from.Sub(b.to) > 200*time.Millisecond {
			s.halves++
		}
	}
	return s
}

// why names the sign that proves that bytes are held back. It is empty if none does.
func (s *signs) why() string {
	switch {
	case s.stamped > 0:
		return fmt.Sprintf("and by the times that they name, those of one batch were made over %s", terminal.Duration(s.late))
	case s.halves > 1:
		return "which end in the middle of an event, as they do when a buffer is full"
	case s.pings > 0:
		return "heartbeats came together, which are sent apart"
	}
	return ""
}

// regular reports whether batches are a second or more apart, and evenly so.
func (j *judge) regular(live []batch) bool {
	var sum, squares float64
	n := float64(len(live) - 1)
	for i := 1; i < len(live); i++ {
		gap := live[i].from.Sub(live[i-1].to).Seconds()
		sum += gap
		squares += gap * gap
	}
	mean := sum / n
	return mean >= 1 && math.Sqrt(max(0, squares/n-mean*mean)) < mean/2
}

func (j *judge) compression() {
	encoding := strings.ToLower(j.header.Get("Content-Encoding"))
	if j.unread != "" {
		encoding = j.unread
	}
	const fix = "Leave text/event-stream out of compression, or send \"Cache-Control: no-cache, no-transform\", which Caddy's encode, Cloudflare and others respect."
	switch {
	case encoding == "" || encoding == "identity":
		j.find(OK, "compression", "Compression was offered, and not used.", "")
	case j.unread != "":
		j.find(Warning, "compression", fmt.Sprintf("Browsers get this stream compressed with %s. All else here was measured without.", quoted(encoding)), fix)
	case j.plain != nil:
		j.find(Failure, "compression", fmt.Sprintf("The stream is compressed with %s, and that holds it back: without, %s came in %s.",
			encoding, count(j.plain.events, "event"), terminal.Duration(j.plain.over.Sub(j.plain.opened))), fix)
	case j.held:
		j.find(Failure, "compression", fmt.Sprintf("The stream is compressed with %s, and that may be what holds it back: a compressor collects until it is told to flush.", encoding), fix)
	case len(j.live()) == 0:
		j.find(Warning, "compression", fmt.Sprintf("The stream is compressed with %s, and nothing has shown whether it is flushed after each event.", encoding), fix)
	default:
		j.find(Note, "compression", fmt.Sprintf("The stream is compressed with %s, and flushed as it should be.", encoding), "")
	}
}

func (j *judge) ending() {
	lasted := j.over.Sub(j.opened)
	_, silent := j.silences()
	if length := j.header.Get("Content-Length"); length != "" {
		j.find(Failure, "end", fmt.Sprintf("The answer has a Content-Length of %s: it is finite, and something has collected all of it first.", terminal.Clip(length, 20)), bufferingFix(j.hops))
	}
	if !j.ended && j.err == nil {
		j.find(OK, "end", fmt.Sprintf("The stream was open for all of %s.", terminal.Duration(lasted)), "")
		j.unseen(fmt.Sprintf("what happens to streams older than %s (--duration listens for longer)", terminal.Duration(lasted)))
		return
	}
	if errors.Is(j.err, sse.ErrEventTooLarge) {
		return
	}
	level, how := Warning, "ended"
	if j.err != nil {
		level, how = Failure, "broke off"
	}
	text := fmt.Sprintf("The stream %s after %s", how, terminal.Duration(lasted))
	fix := "Browsers come back, but each has to connect again, and misses what is sent meanwhile unless it can resume."
	if silent >= 5*time.Second {
		text += fmt.Sprintf(", and %s of silence", terminal.Duration(silent))
		fix = "This looks like a limit on silence: send a comment every 15s, as sse_fanout does, or raise the limit. " + silenceFix(j.hops)
	} else if lasted >= 5*time.Second {
		text += ", while it was busy"
		fix = "This looks like a limit on the age of a request: a worker's timeout, max_execution_time, a server-wide write timeout. Exempt this path from it."
		if known := silenceFix(j.hops); len(j.hops) > 0 && !strings.HasPrefix(known, "Many") {
			fix += " " + known
		}
	}
	if j.half {
		level = Failure
		text += ", in the middle of an event, which is lost"
	}
	if j.err != nil {
		text += " (" + j.err.Error() + ")"
	}
	j.find(level, "end", text+".", fix)
}

func (j *judge) silence() {
	longest, _ := j.silences()
	quiet := terminal.Duration(longest)
	switch {
	case j.heartbeats > 0:
		j.find(OK, "heartbeats", fmt.Sprintf("%s: the longest silence was %s.", upperFirst(count(j.heartbeats, "heartbeat")+" seen"), quiet), "")
		if longest >= 40*time.Second {
			j.find(Warning, "heartbeats", "That is longer than some networks allow.", "Send one every 15s. "+silenceFix(j.hops))
		}
	case longest >= 20*time.Second:
		j.find(Warning, "heartbeats", fmt.Sprintf("There were %s of silence, and no heartbeat.", quiet),
			"Send a comment every 15s, as sse_fanout does. "+silenceFix(j.hops))
	default:
		j.unseen("heartbeats: the stream was never quiet for longer than " + quiet)
	}
	j.unseen("how a silence of more than " + quiet + " ends")
}
