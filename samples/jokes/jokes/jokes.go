// Package jokes tells jokes about computers in the cloud.
package jokes

import "math/rand"

var all = []string{
	"Why did the container leave the party? It had reached its memory limit.",
	"My service scales to zero. So does my motivation, but it takes longer to start again.",
	"I asked the load balancer for advice. It said: it depends, ask one of the others.",
	"A cold start walks into a bar. The bartender says: I'll be with you in nine milliseconds.",
	"Why are registries so calm? They have seen every layer before.",
	"My health check passed. I still don't feel ready.",
	"The revision was immutable, so they made another one and called it a fix.",
	"There is no cloud, said the cloud, it is just a binary on your laptop.",
}

// HitMe returns one joke.
func HitMe() string { return all[rand.Intn(len(all))] }
