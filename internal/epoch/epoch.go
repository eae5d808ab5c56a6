// Package epoch is the identity of an estate-changing run. It is pure data,
// so that workflows may carry it.
package epoch

// Claim identifies an estate-changing run. It travels with every activity.
type Claim struct {
	Epoch   uint64 `json:"epoch"`
	Cluster string `json:"cluster"` // id of the Temporal cluster the run lives on
	Run     string `json:"run"`     // run ID of the workflow
	Nonce   string `json:"nonce"`   // random: tells apart two claims of one epoch number
}
