package oracle

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A choice is a fragment with the trait that it looks at.
type choice struct {
	*fragment
	trait   string
	matcher string
}

// A recipe is what a generated site is made of.
type recipe struct {
	wrapper choice
	fronts  []choice
	behind  choice
}

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

var traitNames = slices.Sorted(maps.Keys(traits))

// anonymous are the traits with which a client may still share.
var anonymous = []string{"address", "agent", "forged", "forwarded", "host", "language", "path", "protocol", "query", "referer"}

// choose picks a fragment, and one of a few traits for it.
func choose(rng *rand.Rand, from []fragment, few []string) choice {
	c := choice{fragment: &from[rng.IntN(len(from))]}
	if c.always {
		return c
	}
	c.trait = pick(rng, few)
	for traits[c.trait].asks == nil && strings.Contains(c.text, "BY") {
		c.trait = pick(rng, traitNames)
	}
	c.matcher = pick(rng, traits[c.trait].matchers)
	if rng.IntN(3) == 0 && !strings.HasPrefix(c.matcher, "not ") {
		c.matcher = "not " + c.matcher
	}
	return c
}

func randomRecipe(rng *rand.Rand) *recipe {
	// With few traits, fragments have to do with each other. A client with a trait
	// that may say who it is never shares, so these are taken less often.
	few := []string{pick(rng, traitNames), pick(rng, anonymous)}
	r := &recipe{wrapper: choose(rng, wrappers, few), behind: choose(rng, behinds, few)}
	for range rng.IntN(4) {
		r.fronts = append(r.fronts, choose(rng, fronts, few))
	}
	return r
}

// choices returns all that the site is made of, the one that is nearest to the
// client first.
func (r *recipe) choices() []choice {
	return append(append([]choice{r.wrapper}, r.fronts...), r.behind)
}

// pairs returns the pairs of fragments, and of a fragment and its trait.
func (r *recipe) pairs() []string {
	var names []string
	for _, c := range r.choices() {
		names = append(names, c.name)
	}
	var pairs []string
	for i, c := range r.choices() {
		if c.trait != "" {
			pairs = append(pairs, c.name+" by "+c.trait)
		}
		for _, other := range names[i+1:] {
			pairs = append(pairs, names[i]+" + "+other)
		}
	}
	return pairs
}

// candidates is of how many random recipes the one is taken that has most pairs
// that no recipe before had.
const candidates = 40

// generate returns n recipes, the same ones for the same seed, and how many
// different pairs they have.
func generate(n int, seed uint64) (recipes []*recipe, covered int) {
	rng := rand.New(rand.NewPCG(seed, 0))
	had := make(map[string]bool)
	for range n {
		var best *recipe
		most := -1
		for range candidates {
			r := randomRecipe(rng)
			fresh := 0
			for _, pair := range r.pairs() {
				if !had[pair] {
					fresh++
				}
			}
			if fresh > most {
				best, most = r, fresh
			}
		}
		for _, pair := range best.pairs() {
			had[pair] = true
		}
		recipes = append(recipes, best)
	}
	return recipes, len(had)
}

// testcase writes the Caddyfile of a recipe.
func (r *recipe) testcase(name string) *testcase {
	test := &testcase{name: name, shares: true, simpler: r.simpler}
	declarations := []string{"root ROOT"}
	var exposed, texts []string
	for i, c := range r.choices() {
		id := strconv.Itoa(i + 1)
		t := traits[c.trait]
		replaced := func(text string) string {
			return strings.NewReplacer("@M", "@m"+id, "ID", id, "INSIDERS", t.insiders, "VALUE", "VALUE"+id, "BY", c.trait).Replace(text)
		}
		text := replaced(c.text)
		if strings.Contains(c.text, "VALUE") {
			value := pick(rand.New(rand.NewPCG(uint64(i), 0)), t.values)
			text = strings.ReplaceAll(text, "VALUE"+id, value)
		}
		texts = append(texts, text)
		if strings.Contains(c.text, "@M") {
			declarations = append(declarations, "@m"+id+" "+c.matcher)
		}
		if c.seen != "" {
			exposed = append(exposed, fmt.Sprintf("header_up X-Site-Seen-%s %s", id, replaced(c.seen)))
		}
		if c.trait != "" && !slices.Contains(test.traits, c.trait) {
			test.traits = append(test.traits, c.trait)
		}
		if c.line != "" {
			test.line = c.line
		}
		test.shares = test.shares && c.certain && (c.always || t.shared && !strings.HasPrefix(c.matcher, "not "))
	}
	last := texts[len(texts)-1]
	shared := "SHARE\n" + last
	if r.behind.inRoute && !r.wrapper.inRoute {
		shared = "route {\n" + indent(shared) + "\n}"
	}
	config := texts[0]
	for _, part := range []struct{ word, text string }{
		{"DECLARATIONS", strings.Join(declarations, "\n")},
		{"FRONTS", strings.Join(texts[1:len(texts)-1], "\n")},
		{"SHARED", shared},
		{"BEHIND", last},
		{"EXPOSED", strings.Join(exposed, "\n")},
	} {
		config = fill(config, part.word, part.text)
	}
	test.config = withoutUnused(config + "\n")
	if strings.Contains(test.config, " private\n") {
		test.config = "&(private) {\n\treverse_proxy PRIVATE\n}\n" + test.config
	}
	for _, site := range []struct{ part, trait string }{{"handle_path", "path"}, {"inside.test", "host"}} {
		if strings.Contains(test.config, site.part) && !slices.Contains(test.traits, site.trait) {
			test.traits = append(test.traits, site.trait)
		}
	}
	return test
}

// fill replaces the lines that are word by the lines of text, indented as they are.
func fill(config, word, text string) string {
	var lines []string
	for line := range strings.SplitSeq(config, "\n") {
		if strings.TrimSpace(line) != word {
			lines = append(lines, line)
			continue
		}
		for part := range strings.SplitSeq(text, "\n") {
			lines = append(lines, line[:strings.Index(line, word)]+part)
		}
	}
	return strings.Join(lines, "\n")
}

var declaration = regexp.MustCompile(`(?m)^\t(@m\d+) .*\n`)

// withoutUnused removes matchers that nothing in their block uses.
func withoutUnused(config string) string {
	blocks := strings.SplitAfter(config, "\n}\n")
	for i, b := range blocks {
		blocks[i] = declaration.ReplaceAllStringFunc(b, func(line string) string {
			name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			if strings.Count(b, name) > 1 {
				return line
			}
			return ""
		})
	}
	return emptyBlock.ReplaceAllString(strings.Join(blocks, ""), "")
}

var emptyBlock = regexp.MustCompile(` {\s*}`)

func indent(text string) string { return "\t" + strings.ReplaceAll(text, "\n", "\n\t") }

// simpler returns the sites that lack one thing of this one.
func (r *recipe) simpler() []*testcase {
	var parts []*recipe
	for i := range r.fronts {
		parts = append(parts, &recipe{r.wrapper, slices.Delete(slices.Clone(r.fronts), i, i+1), r.behind})
	}
	if plain := &behinds[0]; r.behind.fragment != plain {
		parts = append(parts, &recipe{r.wrapper, r.fronts, choice{fragment: plain}})
	}
	if flat := &wrappers[0]; r.wrapper.fragment != flat {
		parts = append(parts, &recipe{choice{fragment: flat}, r.fronts, r.behind})
	}
	tests := make([]*testcase, len(parts))
	for i, part := range parts {
		tests[i] = part.testcase(part.name())
	}
	return tests
}

// name tells what a recipe is made of.
func (r *recipe) name() string {
	var names []string
	for _, c := range r.choices() {
		names = append(names, c.String())
	}
	return strings.Join(names, " + ")
}

func (c choice) String() string {
	if c.trait == "" {
		return c.name
	}
	return c.name + " by " + c.trait
}

// TestGenerated runs sites that are composed of fragments, so that all pairs of
// them meet as soon as possible.
func TestGenerated(t *testing.T) {
	recipes, covered := generate(*configs, *seed)
	t.Logf("seed %d, %d configurations with %d different pairs of fragments and traits", *seed, len(recipes), covered)
	var cases []*testcase
	for i, r := range recipes {
		cases = append(cases, r.testcase(fmt.Sprintf("%d: %s", i, r.name())))
	}
	check(t, cases)
}
