// The one table of renames. The names that models ask for are those of transformers 4: `vision_model.…`, `text_model.…`,
// `visual_projection.weight`, `text_projection.weight`, `logit_scale`, `logit_bias`.

/** Models that wrap a CLIP or a SigLIP save it under these. */
const wrappers = /^(clip|siglip|model)\.(?=(vision_model|text_model|visual_projection|text_projection|logit_scale|logit_bias)\b)/;

/** The numbers 0, 1, 2, … that older versions stored as a buffer: not weights. */
const buffers = /(^|\.)position_ids$/;

/** Names of a vision or text tower that was saved alone: transformers 5 leaves out the tower's prefix then. */
const bareTower = /^(embeddings|encoder|pre_layrnorm|post_layernorm|final_layer_norm|head)\./;

/** How a family of models names its tensors. */
export interface Naming {
  /** The name that models use for a stored tensor; undefined for what is no weight. */
  canonical(stored: string): string | undefined;
  /** Why files with these names can't be such a model, where that can be seen at once; `first` is one of them. */
  refuse(names: ReadonlySet<string>, first: string): string | undefined;
}

/** CLIP and SigLIP. */
export const clipNaming: Naming = {
  canonical: canonicalName,
  refuse(names, first) {
    if (isOpenClip(names)) return 'its tensors have the names of open_clip, which are not supported';
    if (isBareTower(names)) return `it has one tower alone ("${first}", …): both are needed`;
    return undefined;
  },
};

/** The stored name itself; undefined for what is no weight. */
export function nameOfWeight(stored: string): string | undefined {
  return buffers.test(stored) ? undefined : stored;
}

/** The name that models use for a stored tensor; undefined for what is no weight. */
export function canonicalName(stored: string): string | undefined {
  return nameOfWeight(stored)?.replace(wrappers, '');
}

/** Whether the names are those of one tower that was saved without its prefix. */
export function isBareTower(names: Iterable<string>): boolean {
  let some = false;
  for (const name of names) {
    if (name.startsWith('vision_model.') || name.startsWith('text_model.')) return false;
    some ||= bareTower.test(name);
  }
  return some;
}

/** Whether the names are those of open_clip's own files. */
export function isOpenClip(names: ReadonlySet<string>): boolean {
  return names.has('visual.conv1.weight') || names.has('visual.trunk.patch_embed.proj.weight');
}
