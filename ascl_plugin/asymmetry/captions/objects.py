"""Objects by their nouns: one word for all names of an object that a caption can be wrong about.

A noun in none of an image's captions does not make its object absent. Two kinds of nouns mislead
most: other names of a named object ("a person" where captions say "man"), and things present but
unsaid (the sky, a face, shoes).
"""

from __future__ import annotations

import re

# Words of one line may name the same thing; the first stands for all.
_SAME = """
person man woman boy girl child kid people men women children guy lady adult baby toddler player \
family team crowd rider biker cyclist bicyclist motorcyclist skateboarder snowboarder skier surfer \
climber swimmer runner hiker dancer performer musician artist onlooker spectator worker vendor \
trainer owner mother father mom dad parent son daughter couple friend teen teenager youth \
female male human individual member audience officer soldier fan band skater \
wakeboarder chef gentleman group
bicycle bike motorcycle motorbike tricycle scooter dirtbike moped
water ocean sea lake river stream creek pool pond wave puddle surf shore beach coast bay waterfall
grass field lawn yard park meadow garden pasture hill countryside
street road sidewalk path pavement track trail highway intersection lane alley
snow ice slope ski snowboard
mountain cliff rock boulder ridge ledge stone
tree wood woods forest bush plant branch leaf log jungle foliage
dog puppy animal shepherd retriever poodle terrier greyhound pet hound
boat ship kayak canoe raft sailboat ferry vessel
car truck van vehicle taxi suv bus automobile
chair bench couch sofa seat stool
building house store shop tower skyscraper church home
ball basketball football baseball volleyball soccer toy game tennis frisbee disc
table desk counter
plate dish bowl food meal
toilet bathroom restroom sink
kitchen stove oven refrigerator fridge
computer laptop monitor keyboard screen
television tv screen
phone cellphone telephone
horse pony cow cattle
bird duck goose pigeon seagull
glass glasses sunglasses goggle goggles
"""

# Things that captions often leave out: parts of bodies, clothes, surroundings, pictures, doings.
_UNSAID = """
hand head face arm leg foot feet mouth hair eye ear nose tongue tooth teeth beard finger paw
tail neck body back knee shoulder smile tattoo mustache lap skin fur

shirt jacket hat coat dress uniform jeans pant pants short shorts skirt suit costume outfit
clothing clothes clothe cap helmet shoe boot sock glove scarf vest sweater sweatshirt jersey top
swimsuit bikini trunk trunks tie collar gear belt hoodie apron robe t-shirt tshirt bag backpack
necklace watch

air midair sky cloud sun light sunlight shade shadow ground floor dirt sand mud dust wall
window door corner area place space room scene setting city town world ceiling roof surface land

picture photo photograph image view shot camera portrait pose look

day night time morning afternoon evening sunset sunrise dusk dark darkness weather winter summer
moment event

jump trick leap ride run walk swing stunt kick race fight turn step flip dive hit catch throw
move action play match course practice competition fun way thing object item stuff something
part pile line end edge piece pattern style color colour design variety bit use piece order
lot mid background closeup whilst exception
"""
# Verbs that taggers take for nouns: "a man skiing", "a fenced yard".
_VERB = re.compile("..(?:ing|[^e]ed)$")
_NOUNS = {"building", "railing", "string", "ceiling", "awning", "earring", "moped"}

_NONE = frozenset(_UNSAID.split())
_OBJECT = {word: line.split()[0] for line in reversed(_SAME.split("\n")) for word in line.split()}


def object_of(noun: str) -> str | None:
    """Return the object that a noun (a lemma, in lower case) names, or None.

    All names of an object give the same word.

    >>> object_of("puppy"), object_of("umbrella"), object_of("sky")
    ('dog', 'umbrella', None)
    """
    if noun in _NONE or (_VERB.search(noun) and noun not in _NOUNS):
        return None
    return _OBJECT.get(noun, noun)
