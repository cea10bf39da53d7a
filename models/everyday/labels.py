"""The everyday bundle's default labels: some 300 things that a camera sees, some of them groups.

A line `name: member, member` is a group; of the rest each name stands for itself.
"""

THINGS = """
person: person, face, man, woman, child, crowd of people, groom, ballplayer, scuba diver
dog: dog, puppy, labrador retriever, golden retriever, german shepherd, beagle, chihuahua, poodle, standard poodle, pug, siberian husky, border collie, collie, boxer, dalmatian, dachshund, yorkshire terrier, shih-tzu, rottweiler, great dane, cocker spaniel, english springer, pomeranian, samoyed, saint bernard, french bulldog, maltese dog, scotch terrier, irish setter, whippet, airedale, miniature schnauzer, pembroke, doberman, bloodhound, afghan hound, basset, malamute, chow, boston bull
cat: cat, kitten, tabby, tiger cat, persian cat, siamese cat, egyptian cat
bird: bird, robin, goldfinch, house finch, junco, indigo bunting, jay, magpie, chickadee, bulbul, brambling, hummingbird, water ouzel, sparrow, pigeon, crow, coucal, bee eater, hornbill, jacamar, toucan
parrot: african grey, macaw, lorikeet, sulphur-crested cockatoo, parrot
chicken: hen, cock, chicken
duck: duck, drake, red-breasted merganser
goose
swan: swan, black swan
gull: gull, albatross
owl: owl, great grey owl
eagle: eagle, bald eagle, kite, vulture
peacock
ostrich
penguin: penguin, king penguin
horse: horse, sorrel
cow: cow, ox, bull
sheep: sheep, ram
goat: goat, ibex
pig: pig, hog
wild boar
donkey
deer: deer, hartebeest, impala, gazelle
rabbit: rabbit, hare, wood rabbit, angora
hamster
guinea pig
rat
squirrel: squirrel, fox squirrel
hedgehog: hedgehog, porcupine
fox: fox, red fox, kit fox, grey fox, arctic fox
wolf: wolf, timber wolf, white wolf, coyote
bear: bear, brown bear, american black bear, ice bear, sloth bear
panda: giant panda
raccoon
lion
tiger
leopard: leopard, jaguar, snow leopard, cheetah, cougar, lynx
elephant: elephant, indian elephant, african elephant, tusker
zebra
giraffe
camel: camel, arabian camel, llama
monkey: monkey, macaque, baboon, marmoset, capuchin, spider monkey, squirrel monkey, howler monkey, proboscis monkey, langur, colobus, patas, guenon
ape: gorilla, chimpanzee, orangutan, gibbon, siamang
kangaroo: kangaroo, wallaby
seal: seal, sea lion
whale: whale, grey whale, killer whale, dolphin
shark: shark, great white shark, tiger shark, hammerhead
fish: fish, tench, goldfish, coho, barracouta, anemone fish, eel, rock beauty, gar, puffer, sturgeon, lionfish
frog: frog, bullfrog, tree frog, tailed frog
lizard: lizard, common iguana, american chameleon, agama, african chameleon, green lizard, komodo dragon, whiptail, alligator lizard, banded gecko, frilled lizard
crocodile: crocodile, african crocodile, american alligator
turtle: turtle, loggerhead, leatherback turtle, mud turtle, terrapin, box turtle
snake: snake, thunder snake, king snake, garter snake, water snake, boa constrictor, rock python, indian cobra, green mamba, sea snake, horned viper, diamondback, sidewinder, night snake, vine snake, hognose snake, green snake, ringneck snake
spider: spider, tarantula, black widow, garden spider, wolf spider, barn spider, harvestman
spider web
butterfly: butterfly, monarch, admiral, ringlet, cabbage butterfly, sulphur butterfly, lycaenid
dragonfly: dragonfly, damselfly
bee
fly
ant
ladybug
beetle: beetle, ground beetle, long-horned beetle, leaf beetle, dung beetle, rhinoceros beetle, weevil, tiger beetle
grasshopper: grasshopper, cricket, mantis, walking stick
snail
crab: crab, dungeness crab, rock crab, fiddler crab, king crab, hermit crab
lobster: lobster, american lobster, spiny lobster, crayfish
car: car, sports car, convertible, beach wagon, limousine, racer, jeep, minivan, model t, grille, car wheel
taxi: cab, taxi
police car: police van, police car
bus: bus, minibus, school bus, trolleybus
truck: truck, trailer truck, pickup, tow truck, garbage truck, moving van
van: van
fire engine
ambulance
motorcycle: motorcycle, motorbike, moped, motor scooter
bicycle: bicycle, mountain bike, bicycle-built-for-two
train: train, steam locomotive, electric locomotive, bullet train, freight car, passenger car
tram: tram, streetcar
airplane: airplane, airliner, warplane, wing
helicopter
hot-air balloon: balloon, airship
boat: boat, canoe, speedboat, lifeboat, gondola, fireboat
sailboat: sailboat, catamaran, trimaran, yawl, schooner
ship: ship, container ship, liner, aircraft carrier, wreck, pirate
tractor: tractor, harvester, thresher
excavator
lawn mower
wheelbarrow: wheelbarrow, barrow
shopping cart
stroller
wheelchair
traffic light
street sign
stop sign
parking meter
mailbox
fire hydrant
bench: bench, park bench
fence: fence, picket fence, chainlink fence, worm fence, stone wall
bridge: bridge, suspension bridge, steel arch bridge, viaduct
fountain
house: house, boathouse, mobile home, tile roof, thatch, patio
skyscraper
church: church, monastery, bell cote, altar
tower: obelisk, triumphal arch, totem pole, stupa, tower
barn
greenhouse
lighthouse: beacon, lighthouse
pier: pier, dock, breakwater
flagpole
shop: shop, grocery store, bakery, bookshop, shoe shop, toyshop, barbershop, tobacco shop, butcher shop, confectionery
restaurant
mountain: mountain, alp, valley, cliff
beach: beach, seashore, sandbar
lake: lake, lakeside
forest: forest, tree
flower: flower, daisy, yellow lady's slipper, rapeseed
potted plant: pot, potted plant
mushroom: mushroom, agaric, bolete, earthstar, gyromitra, stinkhorn, coral fungus, hen-of-the-woods
table: table, dining table
desk
chair: chair, folding chair, rocking chair, barber chair, throne
sofa: sofa, studio couch
bed: bed, four-poster
crib: crib, cradle, bassinet
wardrobe: wardrobe, chiffonier
bookcase
cabinet: cabinet, china cabinet, file, medicine chest
lamp: lamp, table lamp, lampshade
spotlight
window: window, window screen, window shade
door: door, sliding door
curtain: curtain, shower curtain, theater curtain
pillow
carpet: rug, prayer rug, doormat, carpet
vase
clock: clock, wall clock, analog clock, digital clock
wristwatch: digital watch, wristwatch, stopwatch
candle
fireplace: fireplace, fire screen
radiator
heater: space heater
fan: electric fan
stove: stove, dutch oven
refrigerator
dishwasher
microwave
toaster
washing machine
iron: iron
vacuum cleaner: vacuum
broom: broom, swab
bucket
bathtub: bathtub, tub
sink: washbasin, sink
toilet: toilet seat, toilet
toilet paper
soap dispenser: soap dispenser, lotion
towel: bath towel, towel
hair dryer: hand blower, hair dryer
toothbrush
trash can: ashcan, trash can
plastic bag
box: carton, box
crate
basket: shopping basket, hamper, basket
barrel: barrel, rain barrel
ladder
teddy bear: teddy, teddy bear
doll
cup: cup
mug: coffee mug, mug
teapot
coffee maker: espresso maker, coffeepot
kettle
bottle: bottle, water bottle, pop bottle
wine bottle
beer bottle
beer glass
wine glass: goblet, wine glass
pitcher: pitcher, water jug, whiskey jug
plate
bowl: mixing bowl, soup bowl, bowl
frying pan: frying pan, wok
cooking pot: caldron, crock pot
spoon: wooden spoon, spoon
knife: knife, cleaver, letter opener
fork
spatula
strainer
tray
apple: apple, granny smith
banana
orange
lemon
strawberry
pineapple
grapes
corn: corn, ear
broccoli
cauliflower
cabbage: head cabbage, cabbage
cucumber: cucumber, zucchini
pepper: bell pepper
tomato
carrot
pumpkin: pumpkin, acorn squash, butternut squash, spaghetti squash
bread: bread, french loaf, bagel, dough
pizza
hamburger: cheeseburger, hamburger
hot dog: hotdog
sandwich
pasta: carbonara, spaghetti
soup: soup, consomme, hot pot
meat: meat loaf, meat
cake: cake, trifle
ice cream: ice cream, ice lolly
chocolate: chocolate sauce, chocolate
coffee: espresso, coffee
wine: red wine
laptop: laptop, notebook
computer: desktop computer, monitor, screen
keyboard: computer keyboard, space bar, typewriter keyboard
computer mouse: computer mouse, mouse
printer: printer, photocopier
mobile phone: cellular telephone, mobile phone, hand-held computer
telephone: dial telephone, telephone
television
remote control
camera: camera, reflex camera, polaroid camera, lens cap
loudspeaker
headphones
microphone
radio: radio, tape player, cassette player, cd player, cassette
game controller: joystick
switch: switch, plug
t-shirt
shirt: shirt
sweater: sweatshirt, cardigan, sweater
jacket: jacket
coat: coat, trench coat, fur coat, lab coat, poncho
dress: dress, gown
skirt: skirt, miniskirt, overskirt, hoopskirt
trousers: pants, trousers, jean
shorts
suit
tie: windsor tie, bolo tie
bow tie
hat: hat, cowboy hat, sombrero
cap: cap, bathing cap, shower cap, bonnet
helmet: crash helmet, football helmet
shoe: shoe, shoes, running shoe, loafer, clog
sandal
boot: boot, cowboy boot
sock: sock, christmas stocking
glove: glove, mitten
scarf: stole, feather boa
swimsuit: bikini, maillot, swimming trunks
underwear: brassiere, underwear
sunglasses: sunglasses, sunglass
glasses
backpack
handbag: purse, handbag
wallet
suitcase
umbrella
necklace
mask: mask, oxygen mask, gasmask, ski mask
ball: ball, soccer ball, basketball, volleyball, rugby ball, tennis ball, golf ball, baseball, croquet ball
racket: racket
ski
snowboard
skateboard
surfboard
dumbbell: dumbbell, barbell
tent: mountain tent, tent
swing
guitar: acoustic guitar, electric guitar, guitar, banjo
piano: grand piano, upright, piano
violin: violin, cello
drum: drum, steel drum
trumpet: cornet, trumpet, french horn, trombone
accordion
hammer
screwdriver
power drill
screw
nail
saw
chainsaw: chain saw
shovel
axe: hatchet, axe
lock: padlock, combination lock
key
rope
flashlight: torch, flashlight
lighter: lighter, matchstick
syringe
pill bottle
bandage: band aid
scale: scale
binoculars: binoculars, binocular
ruler: rule, slide rule
pen: ballpoint, fountain pen, quill
pencil: pencil box, pencil sharpener, pencil
book: book, comic book, book jacket
envelope
newspaper
paper towel
scissors
sewing machine
gun: rifle, revolver, assault rifle, gun
solar panel: solar dish, solar panel
"""


def groups():
    """Pairs of a name and its members; one without members is its own."""
    for line in THINGS.strip().splitlines():
        name, _, given = line.partition(": ")
        yield name, given.split(", ") if given else [name]


def members():
    return [member for _, names in groups() for member in names]

