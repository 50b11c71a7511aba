package oracle

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A fault is a difference that the line has made to a client, and to which visits
// of it.
type fault struct {
	id     identity
	url    string
	why    string
	visits []string
}

func (f *fault) String() string {
	return fmt.Sprintf("%s %s\n  %s\n  %s", f.url, f.id, strings.Join(f.visits, "; "), f.why)
}

// judge returns what is wrong with the line in a case, nothing if all is well.
func judge(with, without *run) []*fault {
	var faults []*fault
	for i, w := range with.visits {
		o := without.visits[i]
		if len(w.got) == 0 || len(o.got) == 0 {
			break // the script was given up before
		}
		var why []string
		stuck := with.stuck || without.stuck
		switch {
		case w.what == whatStays && with.test.after != "":
			why = judgeStayer(w, o, without.newcomer(w.id), stuck)
		case stuck:
			why = hurried(w.got[0], o.got[0])
		default:
			why = differences(w.got[0].from(w.since), o.got[0].from(o.since))
		}
		if why != nil {
			faults = add(faults, w, strings.Join(why, "\n  "))
		}
	}
	if with.test.shares && with.line != "" && !with.stuck && with.crowd != 1 {
		faults = append(faults, &fault{
			id:  plain,
			why: fmt.Sprintf("%d equal clients had %d streams from the origin instead of sharing one", crowdSize, with.crowd),
		})
	}
	return faults
}

var roundOf = regexp.MustCompile(`round=\d`)

// add adds a fault of a visit, or the visit to a fault that is there already.
func add(faults []*fault, v *visit, why string) []*fault {
	why = roundOf.ReplaceAllLiteralString(why, "round=N")
	for _, f := range faults {
		if f.id.name == v.id.name && f.why == why {
			f.visits = append(f.visits, v.what)
			return faults
		}
	}
	return append(faults, &fault{v.id, roundOf.ReplaceAllLiteralString(v.url, "round=N"), why, []string{v.what}})
}

// inFlight is how many events may be on their way through Caddy when a client joins
// a stream that has no other client at the time: with the line, it gets them.
const inFlight = 2

// from returns the answer without events that were sent before its client connected.
func (a answer) from(since int) answer {
	first := 0
	for first < min(inFlight, len(a.ticks)) && a.ticks[first] <= since {
		first++
	}
	a.ticks = a.ticks[first:]
	return a
}

// differences compares one answer with what it would have been without us.
func differences(with, without answer) []string {
	var why []string
	differ := func(what string, with, without any) {
		if w, o := fmt.Sprint(with), fmt.Sprint(without); w != o {
			why = append(why, fmt.Sprintf("%s\n    with the line:    %s\n    without the line: %s", what, w, o))
		}
	}
	if with.failed != "" || without.failed != "" || with.stream != without.stream {
		differ("answer", with, without)
		return why
	}
	differ("status", with.status, without.status)
	differ("header", with.header, without.header)
	differ("body", with.body, without.body)
	differ("events that answer the request", strings.Join(with.saw, "\n                  and "), strings.Join(without.saw, " and "))
	differ("numbers of the events", with.ticks, without.ticks)
	differ("also in the stream", with.other, without.other)
	differ("an event was waited for in vain", with.late, without.late)
	differ("the stream has ended", with.ended, without.ended)
	return why
}

// hurried compares answers if the script was given up in one of the runs, because a
// client has waited in vain: events may be missing for that reason alone.
func hurried(with, without answer) []string {
	if without.late {
		return []string{"without the line: waited in vain, so nothing can be said of this case"}
	}
	if with.late || with.stream != without.stream {
		return differences(with, without)
	}
	without.ticks, without.ended = with.ticks, with.ended
	if !slices.ContainsFunc(with.saw, func(saw string) bool { return !slices.Contains(without.saw, saw) }) {
		without.saw = with.saw
	}
	return differences(with, without)
}

func (a answer) String() string {
	switch {
	case a.failed != "":
		return a.failed
	case a.stream:
		return fmt.Sprintf("%d, a stream that answers %s", a.status, strings.Join(a.saw, " and "))
	}
	return fmt.Sprintf("%d %q", a.status, a.body)
}

// newcomer returns the first client of an identity that connected after the reload.
func (r *run) newcomer(id identity) *visit {
	i := slices.IndexFunc(r.visits, func(v *visit) bool { return v.what == whatComesAgain && v.id.name == id.name })
	return r.visits[i]
}

// judgeStayer compares a client that was there when the configuration changed.
// From then on it may get what its own request has got before, or what a new
// request of its own gets. If its stream ends, it connects again and is judged as a
// newcomer. If the script was given up, missing events are not counted as a fault.
func judgeStayer(with, without, newcomer *visit, stuck bool) []string {
	before, first := without.got[0].from(without.since), with.got[0].from(with.since)
	if !before.stream || !first.stream || len(newcomer.got) == 0 {
		return hurried(first, before)
	}
	after := newcomer.got[0]
	why := foreign(first, before, after)
	ticks := slices.Clone(first.ticks)
	for _, a := range with.got[1:] {
		if !after.stream || !a.stream {
			if a.String() != after.String() {
				why = append(why, fmt.Sprintf("answer after coming back\n    with the line:    %s\n    without the line: %s", a, after))
			}
			return why
		}
		why = append(why, foreign(a, after)...)
		ticks = append(ticks, a.ticks...)
	}
	if slices.ContainsFunc(with.got, func(a answer) bool { return a.late }) {
		why = append(why, fmt.Sprintf("an event was waited for in vain, over %d connections; it got %v", len(with.got), ticks))
	}
	if !stuck && !slices.Equal(ticks, before.ticks) {
		why = append(why, fmt.Sprintf("numbers of the events, over %d connections\n    with the line:    %v\n    without the line: %v", len(with.got), ticks, before.ticks))
	}
	return why
}

// foreign tells of events that none of the allowed streams would have brought.
func foreign(got answer, allowed ...answer) []string {
	var right []string
	for _, a := range allowed {
		right = append(right, a.saw...)
	}
	var why []string
	for _, saw := range got.saw {
		if !slices.Contains(right, saw) {
			why = append(why, fmt.Sprintf("events that answer another request\n    with the line: %s\n    allowed:       %s", saw, strings.Join(right, "\n                   ")))
		}
	}
	return why
}
