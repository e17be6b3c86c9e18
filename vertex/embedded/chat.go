package embedded

import (
	"strings"

	"giggle/fault"
	"giggle/vertex/llama"
)

// Turn is a part of a conversation.
type Turn struct {
	Role string `json:"role"` // "system", "user" or "model"
	Text string `json:"text"`
}

// The roles of a Turn.
const (
	System = "system"
	User   = "user"
	Model  = "model"
)

// form is how a family of models writes a conversation. A part that is a control token of the vocabulary becomes it,
// the others are text; {role} and {text} are the turn's.
type form struct {
	mark   string // stands in the chat templates of the family, and in no other's
	begin  []string
	turn   []string
	answer []string // begins the model's turn
	role   map[string]string
	text   func(string) string
}

var assistant = map[string]string{System: "system", User: "user", Model: "assistant"}

// forms are those that are known. A file's own template is a Jinja program, which is not run here.
var forms = []form{
	{
		mark: "'<|' + m['role'] + '|>'", begin: []string{"<s>"},
		turn: []string{"<|{role}|>", "{text}", "</s>"}, answer: []string{"<|assistant|>"},
		role: assistant, text: func(s string) string { return strings.Join(strings.Fields(s), " ") },
	},
	{
		mark:   "<|im_start|>",
		turn:   []string{"<|im_start|>", "{role}\n{text}", "<|im_end|>", "\n"},
		answer: []string{"<|im_start|>", "assistant\n"},
		role:   assistant,
		text:   strings.TrimSpace,
	},
	{
		mark: "<|start_header_id|>", begin: []string{"<|begin_of_text|>"},
		turn:   []string{"<|start_header_id|>", "{role}", "<|end_header_id|>", "\n\n{text}", "<|eot_id|>"},
		answer: []string{"<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"},
		role:   assistant, text: strings.TrimSpace,
	},
}

// prompt writes the conversation as the model was trained to read it, up to the place where its answer begins. Text of
// a turn never becomes a control token.
func prompt(m *llama.Model, turns []Turn) ([]int, error) {
	for _, f := range forms {
		if strings.Contains(m.ChatTemplate(), f.mark) {
			return f.write(m.Tokenizer(), turns)
		}
	}
	return nil, fault.NotImplemented("tokenizer.chat_template",
		"the model %q writes conversations in a way that is not known here: serve it with Ollama or llama.cpp",
		m.Name())
}

func (f form) write(t *llama.Tokenizer, turns []Turn) ([]int, error) {
	var ids []int
	put := func(parts []string, turn Turn) error {
		for _, p := range parts {
			// The role is one of three words of ours; only a whole part that is a mark becomes a control token.
			mark := strings.ReplaceAll(p, "{role}", f.role[turn.Role])
			if strings.HasPrefix(p, "<") {
				id := t.Control(mark)
				if id < 0 {
					return fault.Invalid("tokenizer.ggml.tokens",
						"the vocabulary has no %s, and the chat template uses it", mark)
				}
				ids = append(ids, id)
				continue
			}
			ids = append(ids, t.Encode(strings.ReplaceAll(mark, "{text}", f.text(turn.Text)), false)...)
		}
		return nil
	}
	if err := put(f.begin, Turn{}); err != nil {
		return nil, err
	}
	for i, turn := range turns {
		if f.role[turn.Role] == "" {
			return nil, fault.New(fault.InvalidArgument, "turn %d has the role %q: there are system, user and model", i,
				turn.Role)
		}
		if err := put(f.turn, turn); err != nil {
			return nil, err
		}
	}
	return ids, put(f.answer, Turn{})
}
