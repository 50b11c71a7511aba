package settings

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

const (
	SmallestEventSize = 1 << 10
	LargestEventSize  = 1 << 30
)

// Validate reports every setting that is out of its range.
func (o *Options) Validate() error {
	var found complaints
	o.checkWords(&found)
	o.checkNumbers(&found)
	o.checkRanges(&found)
	o.checkNames(&found)
	o.checkCompress(&found)
	return errors.Join(found...)
}

// complaints are about settings that are out of their range.
type complaints []error

func (c *complaints) add(format string, args ...any) {
	*c = append(*c, fmt.Errorf("checking "+format, args...))
}

func (c *complaints) oneOf(option, value string, allowed ...string) {
	if value == "" || slices.Contains(allowed, value) {
		return
	}
	c.add("%s: %q is not one of %s", option, value, strings.Join(allowed, ", "))
}

func (c *complaints) positive(option string, value int64) {
	if value < 0 {
		c.add("%s: must be positive", option)
	}
}

func (c *complaints) oneLine(option, value string) {
	if !sse.Valid(value) {
		c.add("%s: must not contain a line break or NUL", option)
	}
}

func (c *complaints) atLeastMillisecond(option string, d caddy.Duration) {
	if d > 0 && time.Duration(d) < time.Millisecond {
		c.add("%s: must be at least 1ms", option)
	}
}

// checkWords is about settings that are words or texts.
func (o *Options) checkWords(c *complaints) {
	c.oneOf("credentials", o.Credentials, "strip", "pass")
	c.oneOf("unavailable", o.Unavailable, "hold", "reject")
	c.oneOf("primer", o.Primer, "auto", "on", "off")
	c.oneOf("ids", o.IDs, "origin", "assign")
	c.oneOf("on_end", o.OnEnd, "reconnect", "close")
	c.oneOf("direct", o.Direct, "on", "off")
	c.oneOf("compress", o.Compress.Encoding, "off", "gzip")

	if _, err := netip.ParseAddr(o.AskFrom); o.AskFrom != "" && err != nil {
		c.add("ask_from: %q is not an IP address", o.AskFrom)
	}
	c.oneLine("name", o.Name)
	c.oneLine("heartbeat event", o.Heartbeat.Event)
	c.oneLine("gap_event", o.GapEvent)
	c.oneLine("greeting", o.Greeting)
	if n, err := strconv.Atoi(o.Greeting); err == nil && n < 1 {
		c.add("greeting: %d is not a positive number of events", n)
	}
}

// checkNumbers is about numbers and durations that must be positive.
func (o *Options) checkNumbers(c *complaints) {
	c.positive("history events", int64(o.History.Events))
	c.positive("history age", int64(o.History.Age))
	c.positive("history size", o.History.Size)
	c.positive("retry", int64(o.Retry))
	c.positive("catchup timeout", int64(o.Catchup.Timeout))
	c.positive("linger topics", int64(o.Linger.Topics))
	c.positive("wait", int64(o.Wait))
	c.positive("reconnect min", int64(o.Reconnect.Min))
	c.positive("reconnect max", int64(o.Reconnect.Max))
	c.positive("idle_timeout", int64(o.IdleTimeout))
	c.positive("max_event_size", o.MaxEventSize)
	c.positive("max_topics", int64(o.MaxTopics.Total))
	c.positive("max_topics per_client_ip", int64(o.MaxTopics.PerClientIP))
	c.positive("max_subscribers", int64(o.MaxSubscribers.Total))
	c.positive("max_subscribers per_topic", int64(o.MaxSubscribers.PerTopic))
	c.positive("max_subscribers per_client_ip", int64(o.MaxSubscribers.PerClientIP))
	c.positive("stream_timeout", int64(o.StreamTimeout))
	c.positive("dispatch_timeout", int64(o.DispatchTimeout))
	c.positive("stream_close_delay", int64(o.StreamCloseDelay))
}

// checkRanges is about numbers and durations with other bounds.
func (o *Options) checkRanges(c *complaints) {
	if o.Reconnect.Min > o.Reconnect.Max {
		c.add("reconnect: the minimum of %s is above the maximum of %s",
			time.Duration(o.Reconnect.Min), time.Duration(o.Reconnect.Max))
	}
	if 0 < o.MaxEventSize && o.MaxEventSize < SmallestEventSize {
		c.add("max_event_size: must be at least 1 KiB, and is %d bytes: is its unit missing, as in 16MiB?", o.MaxEventSize)
	}
	if o.MaxEventSize > LargestEventSize {
		c.add("max_event_size: must be at most 1 GiB")
	}
	c.atLeastMillisecond("heartbeat", o.Heartbeat.Interval)
	c.atLeastMillisecond("retry", o.Retry)
	c.atLeastMillisecond("reconnect", o.Reconnect.Min)
}

// checkNames is about the names of query parameters, headers and placeholders.
func (o *Options) checkNames(c *complaints) {
	for _, name := range o.IgnoreQuery {
		if name == "" || strings.ContainsAny(name, "=&?#") {
			c.add("ignore_query: %q is not the name of a query parameter", name)
		}
	}
	for _, name := range o.Vary {
		switch {
		case !validVary(name):
			c.add("vary: %q is neither a header name nor a placeholder in braces", name)
		case strings.HasPrefix(name, "{"):
		case strings.Contains(name, "*"):
			c.add("vary: %q matches no header: name each one that the stream depends on", name)
		case strings.Contains(name, "."):
			// HTTP allows it, but a header that no client sends merges all users.
			c.add("vary: %q is no header: is the placeholder {%s} meant?", name, name)
		case fields.Canonical(name) == "Last-Event-Id":
			c.add("vary: %s cannot be named, as it says where a client resumes and not what it asks for", name)
		}
	}
}

// validVary reports whether name is a header name or a placeholder in braces.
func validVary(name string) bool {
	if placeholder, ok := strings.CutPrefix(name, "{"); ok {
		inner, ok := strings.CutSuffix(placeholder, "}")
		return ok && inner != "" && !strings.ContainsAny(inner, "{} \t")
	}
	return name != "" && strings.IndexFunc(name, func(r rune) bool { return !isTokenRune(r) }) < 0
}

// isTokenRune reports whether r may be part of a token (RFC 9110, section
// 5.6.2).
func isTokenRune(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' ||
		strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// checkCompress is about compression.
func (o *Options) checkCompress(c *complaints) {
	if n := o.Compress.Level; n != 0 && (n < gzip.MinLevel || n > gzip.MaxLevel) {
		c.add("compress: the level must be from %d to %d, and is %d", gzip.MinLevel, gzip.MaxLevel, n)
	}
	c.positive("compress from", int64(o.Compress.From))
	if !o.Compresses() || o.Compress.WithCredentials {
		return
	}
	for _, name := range o.Vary {
		if mayIdentify(name) {
			c.add("compress: vary names %s, which may identify a client, and the length of compressed events tells of secrets in them; "+
				"add the word 'credentials' to compress if they have none, or if nobody else has a part in their text", name)
		}
	}
}

// mayIdentify reports whether a name in vary is that of a header or a placeholder that says
// who a client is.
func mayIdentify(name string) bool {
	placeholder, ok := strings.CutPrefix(strings.TrimSuffix(name, "}"), "{")
	if !ok {
		return !fields.Harmless(fields.Canonical(name))
	}
	if header, ok := strings.CutPrefix(placeholder, "http.request.header."); ok {
		return !fields.Harmless(fields.Canonical(header))
	}
	return slices.ContainsFunc([]string{"http.request.cookie.", "http.request.tls.client.", "http.auth."},
		func(prefix string) bool { return strings.HasPrefix(placeholder, prefix) })
}
