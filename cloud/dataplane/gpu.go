package dataplane

import (
	"cmp"
	"fmt"
	"log/slog"

	"giggle/engine"
	"giggle/run"
)

// GPUs is how the machine's GPUs are found.
type GPUs struct {
	Emulate bool           // services that want a kind of which there is none run on the CPU
	Aliases []run.GPUAlias // models that stand for kinds of Cloud Run's
	Devices string         // directory in whose proc/ the driver's list lies; "" for the machine's own
	CDI     []string       // directories of CDI specs; nil for the usual ones
	Log     *slog.Logger
}

// Find looks for the machine's GPUs and says what they may be used as. What is wrong with one is logged: services that
// need none are none the worse for it.
func (g GPUs) Find() run.GPUs {
	out := run.GPUs{Emulate: g.Emulate}
	cards, err := engine.GPUs(cmp.Or(g.Devices, "/"))
	if err != nil {
		g.Log.Warn("GPUs", "err", err)
	}
	dirs := g.CDI
	if dirs == nil {
		dirs = engine.CDIDirs()
	}
	for _, card := range cards {
		kinds := run.GPUKinds(card.Model, g.Aliases)
		if err := engine.CheckGPU(dirs, card); err != nil && len(kinds) > 0 {
			g.Log.Warn("a GPU that no container can have", "gpu", card.UUID, "err", err)
		}
		g.Log.Info("found a GPU", "model", card.Model, "gpu", card.UUID, "bus", card.Bus, "for", fmt.Sprint(kinds))
		out.Have = append(out.Have, run.GPU{GPU: card, Kinds: kinds})
	}
	return out
}
