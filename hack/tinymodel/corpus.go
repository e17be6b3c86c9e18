package main

import (
	"embed"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
)

//go:embed corpus/*.txt
var files embed.FS

// thing is something that jokes are made of, with what templates need of it.
type thing struct {
	topic, one, many, pronoun string
	lines                     map[string][]string // by the letter of corpus/things.txt
}

// joke is a text and what it is about.
type joke struct {
	topic  string   // a topic of corpus/topics.txt
	things []string // names of the things in it, singular and plural
	text   string
	weight int // how often an epoch has it
}

// corpus is all that the model is trained and tested on.
type corpus struct {
	train, held []joke
	topics      map[string][]string // names by topic
	on          []string            // requests with {t}
	any         []string            // requests with no topic
	other       []string            // questions about something else
	small       [][2]string         // greetings and their answers
	systems     []string
}

// rows calls do with the fields of each line of a file.
func rows(name string, do func(fields []string)) error {
	b, err := files.ReadFile("corpus/" + name)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Split(line, " | ")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		do(fields)
	}
	return nil
}

// readCorpus makes all jokes. It has no randomness but that of a fixed seed: the same files make the same corpus.
func readCorpus() (*corpus, error) {
	c := &corpus{topics: make(map[string][]string)}
	var things []*thing
	var frames [][2]string
	var jokes []joke
	var errs []error
	read := func(name string, do func(f []string)) { errs = append(errs, rows(name, do)) }
	read("topics.txt", func(f []string) { c.topics[f[0]] = strings.Split(f[1], "; ") })
	read("jokes.txt", func(f []string) { jokes = append(jokes, joke{topic: f[0], text: f[1], weight: 4}) })
	read("frames.txt", func(f []string) { frames = append(frames, [2]string{f[0], f[1]}) })
	read("requests.txt", func(f []string) {
		switch f[0] {
		case "r":
			c.on = append(c.on, f[1])
		case "n":
			c.any = append(c.any, f[1])
		case "o":
			c.other = append(c.other, f[1])
		case "h":
			c.small = append(c.small, [2]string{f[1], f[2]})
		case "y":
			c.systems = append(c.systems, f[1])
		}
	})
	read("things.txt", func(f []string) {
		if len(f) == 4 {
			things = append(things, &thing{
				topic:   f[0],
				one:     f[1],
				many:    f[2],
				pronoun: f[3],
				lines:   make(map[string][]string),
			})
			return
		}
		t := things[len(things)-1]
		letter, first, _ := strings.Cut(f[0], " ")
		t.lines[letter] = append(t.lines[letter], strings.Join(append([]string{first}, f[1:]...), " | "))
	})
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	c.train = jokes
	c.fill(things, frames)
	return c, nil
}

// fill puts the things into the frames. One instance in twenty is held out of the training: it is chosen by its text.
func (c *corpus) fill(things []*thing, frames [][2]string) {
	rng := rand.New(rand.NewPCG(7, 7))
	seen := make(map[string]bool)
	for _, t := range things {
		for _, frame := range frames {
			for _, line := range t.lines[frame[0]] {
				seconds := 1
				if strings.Contains(frame[1], "{y}") {
					seconds = 6
				}
				for range seconds {
					u := things[rng.IntN(len(things))]
					if u == t {
						continue
					}
					text := instance(frame, t, u, line, rng)
					if seen[text] {
						continue
					}
					seen[text] = true
					j := joke{topic: t.topic, things: []string{t.one, t.many}, text: text, weight: 1}
					if strings.Contains(frame[1], "{u") || strings.Contains(frame[1], "{au}") {
						j.things = append(j.things, u.one, u.many)
					}
					if h := fnv.New32a(); true {
						_, _ = h.Write([]byte(text))
						if h.Sum32()%20 == 0 {
							c.held = append(c.held, j)
							continue
						}
					}
					c.train = append(c.train, j)
				}
			}
		}
	}
}

// numbers of light bulb jokes and what is left when one changes the bulb.
var numbers = [][2]string{{"Two", "one"}, {"Three", "two"}, {"Four", "three"}, {"Five", "four"}, {"Ten", "nine"},
	{"A hundred", "ninety-nine"}}

func instance(frame [2]string, t, u *thing, line string, rng *rand.Rand) string {
	n := numbers[rng.IntN(len(numbers))]
	kind := ""
	if frame[0] == "f" {
		kind, line, _ = strings.Cut(line, " | ")
	}
	theirs := u.lines["x"]
	return strings.NewReplacer(
		"{a}", article(t.one), "{A}", capital(article(t.one)), "{t}", "the "+t.one, "{T}", "The "+t.one, "{n}", t.many,
		"{p}", t.pronoun, "{P}", capital(t.pronoun), "{u}", "the "+u.one, "{un}", u.many, "{au}", article(u.one),
		"{b}", line, "{x}", line, "{s}", line, "{l}", line, "{f}", line, "{K}", kind,
		"{y}", theirs[rng.IntN(len(theirs))], "{k}", n[0], "{j}", n[1],
	).Replace(frame[1])
}

func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// turn is a request and its answer.
type turn struct{ ask, answer string }

// talk is a short conversation: with a system instruction or none.
type talk struct {
	system string
	turns  []turn
}

// ask writes a request to which the joke is an answer: on its topic, on a thing in it, or on nothing.
func (c *corpus) ask(j joke, rng *rand.Rand) string {
	names := c.topics[j.topic]
	if len(j.things) > 0 && rng.IntN(10) < 5 {
		names = j.things
	}
	name := names[rng.IntN(len(names))]
	switch rng.IntN(20) {
	case 0, 1:
		return vary(c.any[rng.IntN(len(c.any))], rng)
	default:
		return vary(strings.ReplaceAll(c.on[rng.IntN(len(c.on))], "{t}", name), rng)
	}
}

// vary writes a request as different people do: in lower case, without the point, with a capital.
func vary(s string, rng *rand.Rand) string {
	switch rng.IntN(6) {
	case 0:
		return strings.ToLower(s)
	case 1:
		return strings.TrimRight(s, ".!? ")
	case 2:
		return capital(s)
	case 3:
		return strings.ToLower(strings.TrimRight(s, ".!? "))
	}
	return s
}

// epoch returns every joke of the training once (or as often as its weight says) in conversations of random length,
// in an order that only depends on the number.
func (c *corpus) epoch(number int) []talk {
	rng := rand.New(rand.NewPCG(11, uint64(number)))
	var turns []turn
	for _, j := range c.train {
		for range j.weight {
			turns = append(turns, turn{c.ask(j, rng), j.text})
		}
	}
	for _, o := range c.other {
		j := c.train[rng.IntN(len(c.train))]
		turns = append(turns, turn{vary(o, rng), "I only know jokes. " + j.text})
	}
	for range 3 {
		for _, s := range c.small {
			turns = append(turns, turn{vary(s[0], rng), s[1]})
		}
	}
	rng.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	var talks []talk
	for len(turns) > 0 {
		n := 1
		if rng.IntN(10) >= 6 {
			n = min(2+rng.IntN(4), len(turns))
		}
		t := talk{turns: slices.Clone(turns[:n])}
		if rng.IntN(6) == 0 {
			t.system = c.systems[rng.IntN(len(c.systems))]
		}
		talks = append(talks, t)
		turns = turns[n:]
	}
	return talks
}

// heldOut returns the jokes that are not trained, each asked for once.
func (c *corpus) heldOut() []talk {
	rng := rand.New(rand.NewPCG(13, 13))
	talks := make([]talk, len(c.held))
	for i, j := range c.held {
		talks[i] = talk{turns: []turn{{c.ask(j, rng), j.text}}}
	}
	return talks
}

// size says how much text there is.
func (c *corpus) size() string {
	bytes := 0
	for _, j := range c.train {
		bytes += len(j.text)
	}
	return fmt.Sprintf("%d jokes to train on (%d KB), %d held out", len(c.train), bytes/1000, len(c.held))
}
