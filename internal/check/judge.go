package check

import (
	"errors"
	"fmt"
	"math"
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

// refused is about answers that are no event stream, and about none.
func (j *judge) refused() {
	text, fix := j.refusal()
	j.find(Failure, "answer", text+j.redirected(), fix)
}

func (j *judge) refusal() (text, fix string) {
	if errors.Is(j.err, eventsource.ErrStopped) {
		return "204 No Content: by this a server asks clients not to come back, and browsers obey.",
			"If there is to be a stream, look at what decides that there is none."
	}
	if e, ok := errors.AsType[*eventsource.TurnedAwayError](j.err); ok {
		return upperFirst(e.Error()) + ".",
			"Try again then, as browsers do by themselves. If it is sse_fanout, its metric caddy_sse_fanout_rejected_total says which limit: max_subscribers or max_topics."
	}
	if e, ok := errors.AsType[*eventsource.StatusError](j.err); ok {
		fix = "Browsers give up for good on this; a script of the page has to make a new EventSource."
		switch e.Code {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
			fix = "Add what it asks for, as in -H \"Authorization: Bearer …\" or -H \"Cookie: …\". (EventSource itself can send only cookies.)"
		case http.StatusNotFound, http.StatusMethodNotAllowed:
			fix = "Check the path: is it that of the stream, and does it end (or not) in a slash?"
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			fix = "The server has no place for another stream. Browsers give up for good on this; sse_fanout needs one place for all of them."
		case http.StatusBadGateway, http.StatusGatewayTimeout:
			fix = "The proxy gets no answer from the server behind it: is it running, and does it send its header at once?"
		}
		return e.Error() + ".", fix
	}
	if e, ok := errors.AsType[*eventsource.TypeError](j.err); ok {
		fix = "Send \"Content-Type: text/event-stream\"; browsers refuse everything else."
		if strings.HasPrefix(e.ContentType, "text/html") {
			fix = "This looks like a page: check the path, and whether a login page is in the way. A stream is sent with \"Content-Type: text/event-stream\"."
		}
		if e.Encoding != "" {
			fix = "The server ignores Accept-Encoding; leave event streams out of compression."
		}
		return upperFirst(e.Error()) + ".", fix
	}
	fix = "Check host, port and scheme, and whether the server is running."
	if text := j.err.Error(); strings.Contains(text, "certificate") || strings.Contains(text, "x509") {
		fix = "Browsers refuse this certificate as well. --insecure goes on without checking it."
	}
	return "No connection: " + j.err.Error() + ".", fix
}

// redirected tells where something went wrong if that is not the URL that was
// asked for.
func (j *judge) redirected() string {
	list := j.report.Connection.Redirects
	if len(list) == 0 {
		return ""
	}
	return " The request had been redirected to " + terminal.Clip(list[len(list)-1], 200) + "."
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

// buffering judges arrival times. What is sent at once cannot be told from what
// was collected on the way, so only what no server does is called buffering.
func (j *judge) buffering() {
	live := j.live()
	fix := bufferingFix(j.hops)
	opened := j.opened.Sub(j.begun)
	if len(live) == 0 {
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
		return
	}

	var batches, several, pings, halves, stamped, events int
	var late time.Duration
	for i, b := range live {
		if b.events > 0 {
			batches++
			events += b.events
		}
		if b.events > 1 {
			several++
			if spread := b.late - b.early - b.to.Sub(b.from); b.early > 0 && spread >= time.Second {
				stamped++
				late = max(late, spread)
			}
		}
		before := j.opened
		if i > 0 {
			before = live[i-1].to
		}
		quiet := b.from.Sub(before) >= time.Second
		if b.heartbeats > 1 && quiet {
			pings++
		}
		if b.half && b.events > 0 && i+1 < len(live) && live[i+1].from.Sub(b.to) > 200*time.Millisecond {
			halves++
		}
	}
	var why string
	switch {
	case stamped > 0:
		why = fmt.Sprintf("and by the times that they name, those of one batch were made over %s", terminal.Duration(late))
	case halves > 1:
		why = "which end in the middle of an event, as they do when a buffer is full"
	case pings > 0:
		why = "heartbeats came together, which are sent apart"
	}
	switch {
	case why != "":
		j.held = true
		text := "Something holds bytes back"
		switch {
		case stamped > 0 || halves > 1:
			text = fmt.Sprintf("Events are held back: %s came in %s,", count(events, "event"), count(batches, "batch"))
		default:
			text += ":"
		}
		j.find(Failure, "buffering", text+" "+why+".", fix)
	case batches >= 3 && events >= 3*batches && j.regular(live):
		j.find(Warning, "buffering", fmt.Sprintf("Events come in bursts: %s in %s, about %s apart. Either they are sent so, or a buffer is on the way.",
			count(events, "event"), count(batches, "batch"), terminal.Duration(live[len(live)-1].from.Sub(live[0].from)/time.Duration(max(1, len(live)-1)))),
			"If the server does not send bursts: "+fix)
	case events == 0:
		j.find(OK, "buffering", "Heartbeats arrive one by one.", "")
		j.unseen("whether events are held back: none came after the stream was opened")
	case events < 3:
		j.find(Note, "buffering", fmt.Sprintf("%s came after the stream was opened, too few to tell whether events are held back.", upperFirst(count(events, "event"))), "")
	default:
		j.find(OK, "buffering", fmt.Sprintf("Nothing holds events back: %s arrived in %s, %s.", count(events, "event"), count(batches, "batch"), gaps(live)), "")
	}
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

func (j *judge) caching() {
	const fix = "Send \"Cache-Control: no-cache, no-transform\"."
	control := strings.ToLower(strings.Join(j.header.Values("Cache-Control"), ","))
	status := strings.ToUpper(j.header.Get("Cf-Cache-Status") + " " + j.header.Get("X-Cache"))
	switch age := j.header.Get("Age"); {
	case strings.Contains(status, "HIT") || age != "" && age != "0":
		j.find(Failure, "caching", "The answer comes from a cache: it is a recording, not the stream.", fix+" And leave this path out of the cache.")
	case control == "":
		j.find(Warning, "caching", "There is no Cache-Control: a cache may store the stream, and so wait for its end.", fix)
	case !strings.Contains(control, "no-cache") && !strings.Contains(control, "no-store") && !strings.Contains(control, "private"):
		j.find(Warning, "caching", fmt.Sprintf("Cache-Control is %s, which lets caches store the stream, and so wait for its end.", quoted(control)), fix)
	case !strings.Contains(control, "no-transform"):
		j.find(Note, "caching", fmt.Sprintf("Cache-Control is %s; with no-transform, no proxy may compress the stream either.", quoted(control)), "")
	default:
		j.find(OK, "caching", fmt.Sprintf("Cache-Control is %s.", quoted(control)), "")
	}
	if strings.EqualFold(j.header.Get("X-Accel-Buffering"), "yes") {
		j.find(Warning, "caching", "X-Accel-Buffering: yes tells nginx to collect the stream.", "Send \"X-Accel-Buffering: no\".")
	}
}

func (j *judge) protocol() {
	const six = "a browser holds at most six connections to a site over HTTP/1.1, and each open stream, in any tab, is one of them"
	switch {
	case j.response.ProtoMajor >= 2:
		j.find(OK, "protocol", j.response.Proto+": a browser's streams share one connection.", "")
	case j.response.ProtoMinor == 0:
		j.find(Warning, "protocol", "HTTP/1.0: many proxies collect such answers.", "In nginx, \"proxy_http_version 1.1;\".")
	case j.check.Forced1:
		j.find(Note, "protocol", "HTTP/1.1, as was asked for.", "")
	case j.response.TLS != nil:
		j.find(Warning, "protocol", j.response.Proto+": "+six+".", "Turn on HTTP/2; Caddy has it on by itself.")
	default:
		j.find(Note, "protocol", j.response.Proto+", without TLS: "+six+". Over HTTPS, HTTP/2 has no such limit.", "")
	}
}

func (j *judge) cors() {
	allowed := j.header.Get("Access-Control-Allow-Origin")
	switch origin := j.check.Origin; {
	case origin == "" && allowed == "":
		j.find(Note, "cors", "Only pages of the same site can read the stream. (--origin checks for another.)", "")
	case origin == "":
		j.find(Note, "cors", fmt.Sprintf("Pages of %s can read the stream.", quoted(allowed)), "")
	case allowed == "*" || allowed == origin:
		j.find(OK, "cors", fmt.Sprintf("Pages of %s can read the stream.", origin), "")
	default:
		text := fmt.Sprintf("Pages of %s cannot read the stream: there is no Access-Control-Allow-Origin.", origin)
		if allowed != "" {
			text = fmt.Sprintf("Pages of %s cannot read the stream: Access-Control-Allow-Origin is %s.", origin, quoted(allowed))
		}
		j.find(Failure, "cors", text, fmt.Sprintf("Send \"Access-Control-Allow-Origin: %s\"; in sse_fanout, \"cors_origins %s\".", origin, origin))
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
