/** What the routes take; what is not named here is refused. */

const text = (maxLength) => ({ type: 'string', minLength: 1, maxLength, pattern: '\\S' });

export const language = text(60);

export const imageUrl = { type: 'string', minLength: 1, maxLength: 10_485_760, pattern: '^(https?://|data:image/)' };

export const categories = {
  type: 'object',
  minProperties: 1,
  maxProperties: 50,
  propertyNames: { maxLength: 100 },
  additionalProperties: { type: 'string', maxLength: 500 },
};

export const styles = {
  type: 'array',
  minItems: 1,
  maxItems: 10,
  items: {
    anyOf: [
      { enum: ['Studio', 'Lifestyle', 'Premium'] },
      {
        type: 'object',
        required: ['name', 'description'],
        additionalProperties: false,
        properties: { name: text(60), description: text(1000) },
      },
    ],
  },
};

const object = (properties, required = []) => ({ type: 'object', additionalProperties: false, properties, required });

export const analyzeProduct = object({ image_url: imageUrl }, ['image_url']);
export const generate = object({ image_url: imageUrl, categories, styles }, ['image_url', 'categories']);
export const describe = object({ prompt: text(20_000), categories, language });
export const product = object({ language, styles });

/** What is wrong with an input, from the validator's errors, for the one who sent it. */
export function problemOf([{ instancePath, keyword, params, message }], where = 'body') {
  const field = instancePath.slice(1).replaceAll('/', '.') || `The ${where}`;
  if (field.startsWith('styles.')) return 'Each style is "Studio", "Lifestyle", "Premium" or {"name", "description"}.';
  if (keyword === 'additionalProperties') return `${field} has the unknown field "${params.additionalProperty}".`;
  if (keyword === 'required') return `${field} lacks "${params.missingProperty}".`;
  return `${field} ${message}.`;
}
