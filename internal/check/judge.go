package check

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

// A judge makes findings from an observation.
type judge struct {
	*observation
	check   *Check
	unread  string       // the encoding that a browser would have been sent, if it cannot be read here
	plain   *observation // without compression, if with it nothing came
	resumed *resumption
	report  *Report

	header http.Header
	hops   []hop
	held   bool // events are held back
}

func (j *judge) find(level Level, about, text, fix string) {
	j.report.Findings = append(j.report.Findings, Finding{Level: level, About: about, Text: text, Fix: fix})
}

func (j *judge) unseen(what string) {
	j.report.NotObserved = append(j.report.NotObserved, what)
}

func (j *judge) run() {
	defer j.report.conclude()
	if j.err != nil && !isLost(j.err) && !errors.Is(j.err, sse.ErrEventTooLarge) {
		j.report.Err = j.err
		j.refused()
		return
	}
	if j.response == nil {
		// Looking has ended before there was an answer.
		j.report.Err = ErrNoAnswer
		j.find(Failure, "answer", fmt.Sprintf("There was no answer within %s: either the server sends its header only with the first event, or something waits for the whole response.",
			terminal.Duration(j.over.Sub(j.begun)))+j.redirected(),
			"Let the server flush its header, and a comment, as soon as it has accepted the request. "+bufferingFix(nil))
		return
	}
	j.header = j.response.Header
	j.hops = recognize(j.header)

	j.answer()
	j.buffering()
	j.compression()
	j.ending()
	j.silence()
	j.resuming()
	j.retry()
	j.caching()
	j.protocol()
	j.cors()
	j.redirects()
	if errors.Is(j.err, sse.ErrEventTooLarge) {
		j.report.Err = j.err
		j.find(Failure, "size", "An event, or a line, is larger than the limit of this command.",
			"If it is meant to be, raise --max-event-size; that of sse_fanout is 16MiB.")
	}
	if j.check.Duration > j.over.Sub(j.begun) {
		j.unseen(fmt.Sprintf("the rest of %s", terminal.Duration(j.check.Duration)))
	}
}

// ErrNoAnswer is that not even a header came while it was waited for.
var ErrNoAnswer = errors.New("no answer")

func isLost(err error) bool {
	_, ok := errors.AsType[*eventsource.LostError](err)
	return ok
}

func (j *judge) answer() {
	if _, parameters, _ := strings.Cut(j.header.Get("Content-Type"), ";"); parameters != "" {
		name, charset, _ := strings.Cut(strings.TrimSpace(parameters), "=")
		if charset = strings.Trim(charset, `"`); strings.EqualFold(name, "charset") && !strings.EqualFold(charset, "utf-8") {
			j.find(Warning, "answer", fmt.Sprintf("Content-Type says that the stream is in %s, but event streams are always read as UTF-8.", quoted(charset)),
				"Send UTF-8, and \"Content-Type: text/event-stream\".")
		}
	}
	wait := j.opened.Sub(j.begun)
	if wait < time.Second {
		return
	}
	took := terminal.Duration(wait)
	if len(j.batches) > 0 && j.batches[0].from.Sub(j.opened) < 50*time.Millisecond {
		j.find(Warning, "answer", fmt.Sprintf("The header came after %s, together with the first bytes: a page does not know until then that it is connected, and proxies may give up.", took),
			"Let the server flush its header, and a comment, as soon as it has accepted the request.")
		return
	}
	j.find(Note, "answer", fmt.Sprintf("The header came after %s.", took), "")
}

func (j *judge) retry() {
	if len(j.retries) == 0 {
		j.find(Note, "retry", "The server names no reconnection time: browsers take one of 3s to 5s.", "")
		return
	}
	switch last := j.retries[len(j.retries)-1]; {
	case last < 100*time.Millisecond:
		j.find(Warning, "retry", fmt.Sprintf("Browsers are told to come back after %s: when the server is down, all of them will ask all the time.", terminal.Duration(last)), "Send \"retry: 3000\".")
	case last > time.Minute:
		j.find(Warning, "retry", fmt.Sprintf("Browsers are told to come back only after %s.", terminal.Duration(last)), "Send \"retry: 3000\".")
	default:
		j.find(OK, "retry", fmt.Sprintf("Browsers are told to come back after %s.", terminal.Duration(last)), "")
	}
}

func (j *judge) redirects() {
	if list := j.report.Connection.Redirects; len(list) > 0 {
		j.find(Note, "redirect", fmt.Sprintf("Each connection goes through %s first.", count(len(list), "redirect")), "")
	}
}

// count is n of what, in words.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "ch") {
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// quoted is text of the server, in quotes and short.
func quoted(text string) string {
	return `"` + terminal.Clip(text, 60) + `"`
}
