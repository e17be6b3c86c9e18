package cloud

import (
	"cmp"
	"fmt"

	"giggle/engine"
	"giggle/run"
)

// findGPUs looks for the machine's GPUs and says what they may be used as. What is wrong with one is logged: services that need
// none are none the worse for it.
func (c *Cloud) findGPUs() run.GPUs {
	out := run.GPUs{Emulate: c.cfg.EmulateGPUs}
	cards, err := engine.GPUs(cmp.Or(c.cfg.Devices, "/"))
	if err != nil {
		c.cfg.Log.Warn("GPUs", "err", err)
	}
	dirs := c.cfg.CDI
	if dirs == nil {
		dirs = engine.CDIDirs()
	}
	for _, g := range cards {
		kinds := run.GPUKinds(g.Model, c.cfg.GPUAliases)
		if err := engine.CheckGPU(dirs, g); err != nil && len(kinds) > 0 {
			c.cfg.Log.Warn("a GPU that no container can have", "gpu", g.UUID, "err", err)
		}
		c.cfg.Log.Info("found a GPU", "model", g.Model, "gpu", g.UUID, "bus", g.Bus, "for", fmt.Sprint(kinds))
		out.Have = append(out.Have, run.GPU{GPU: g, Kinds: kinds})
	}
	return out
}
