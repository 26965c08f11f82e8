//! Words that keys are made of: an adjective and a noun.

use super::draw::Draw;

const ADJECTIVES: &str = "\
    able bitter brave brief bright broad calm careful clever cold curious damp deep distant dry dull eager early empty \
    faint famous fierce final gentle golden grand green heavy hidden hollow honest humble idle jolly kind lazy little \
    lively lonely loud lucky mild modern narrow neat noisy old pale patient plain polite proud quick quiet rapid rare \
    round rusty sharp shy silent silver simple slow smooth soft solid stern strange sturdy sudden tame tender thick \
    tidy tiny vast warm weary wild wise young";
const NOUNS: &str = "\
    anchor apple arrow autumn basket beacon bell bird blanket boat bottle branch bridge bucket button candle canyon \
    carpet castle cellar chain clock cloud coin compass copper corner cradle curtain desert door drum engine feather \
    field flag flute forest fountain garden gate glove hammer harbor helmet hill island jacket kettle kitchen ladder \
    lake lamp lantern letter meadow mirror mountain needle oven paddle parcel pebble pencil pillow pocket pond prairie \
    puzzle quarry river rocket saddle sail shadow shovel stable station statue street summer table teapot temple \
    thread ticket tower tunnel valley village violin wagon wheel whistle window winter";

/// The words, ready to draw from.
#[derive(Debug)]
pub(super) struct Words {
    adjectives: Vec<&'static str>,
    nouns: Vec<&'static str>,
}

impl Words {
    pub(super) fn new() -> Self {
        Self { adjectives: ADJECTIVES.split_whitespace().collect(), nouns: NOUNS.split_whitespace().collect() }
    }

    /// `adjective-noun`, and none of `taken`.
    pub(super) fn draw(&self, taken: &[String], draw: &mut Draw) -> String {
        loop {
            let key = format!("{}-{}", draw.pick(&self.adjectives), draw.pick(&self.nouns));
            if !taken.contains(&key) {
                return key;
            }
        }
    }
}
